"""What a nonlinear operator ``f(z, u, p)`` offers."""

from abc import abstractmethod

import equinox as eqx
from jaxtyping import Array, Float


class AbstractNonlinearOperator(eqx.Module):
    """``f`` of ``z' = A z + f``; its inputs are ``[z, u, p]``, normalised."""

    @abstractmethod
    def __call__(self, inputs: Float[Array, " input"]) -> Float[Array, " latent"]:
        """``f``, or the target ``g`` where :attr:`is_relaxation`; 1/time or none.

        Args:
            inputs: Latent variables, then controls, then parameters, dimensionless.
        """

    def prepared(self) -> "AbstractNonlinearOperator":
        """The operator with what does not change along a rollout worked out once."""
        return self

    @property
    def is_relaxation(self) -> bool:
        """Whether the value is ``g`` of ``f = -A g`` rather than ``f`` itself."""
        return False
