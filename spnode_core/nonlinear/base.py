"""What a nonlinear operator ``f(z, u, p)`` offers."""

from abc import abstractmethod

import equinox as eqx
from jaxtyping import Array, Float

from spnode_core.linear.base import AbstractLinearOperator


class AbstractNonlinearOperator(eqx.Module):
    """``f`` of ``z' = A z + f``; its inputs are ``[z, u, p]``, normalised."""

    @abstractmethod
    def __call__(self, inputs: Float[Array, " input"]) -> Float[Array, " latent"]:
        """``f``, or the target ``g`` where :attr:`is_relaxation`; 1/time or none.

        Args:
            inputs: Latent variables, then controls, then parameters, dimensionless.
        """

    def prepared(self, linear: AbstractLinearOperator) -> "AbstractNonlinearOperator":
        """The operator with what does not change along a rollout worked out once.

        Args:
            linear: The ``A`` beside it, whose decay may bound it.
        """
        return self

    @property
    def is_relaxation(self) -> bool:
        """Whether the value is ``g`` of ``f = -A g`` rather than ``f`` itself."""
        return False
