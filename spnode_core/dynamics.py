"""The latent dynamics ``z' = A(p) z + f(z, u, p)``, without any time step."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from spnode_core.linear.base import AbstractLinearOperator
from spnode_core.nonlinear.base import AbstractNonlinearOperator


class Dynamics(eqx.Module):
    """``z' = A(p) z + f(z, u, p)``, or ``z' = A (z - g(z, u, p))`` in relaxation form.

    Args:
        linear: The stable part A, 1/time.
        nonlinear: The rest, f or g.

    Source:
        Paper, (2).
    """

    linear: AbstractLinearOperator
    nonlinear: AbstractNonlinearOperator

    def prepared(self) -> "Dynamics":
        """The dynamics with what does not change along a rollout worked out once."""
        return type(self)(self.linear, self.nonlinear.prepared(self.linear))

    def forcing(
        self,
        z: Float[Array, " latent"],
        controls: Float[Array, " control"],
        parameters: Float[Array, " parameter"],
    ) -> Float[Array, " latent"]:
        """The nonlinear operator's value: ``f``, or ``g`` in relaxation form."""
        return self.nonlinear(jnp.concatenate([z, controls, parameters]))

    def derivative(
        self,
        z: Float[Array, " latent"],
        controls: Float[Array, " control"],
        parameters: Float[Array, " parameter"],
    ) -> Float[Array, " latent"]:
        """``z'``, 1/time; controls and parameters normalised."""
        value = self.forcing(z, controls, parameters)
        if self.nonlinear.is_relaxation:
            return self.linear.apply(z - value, parameters)
        return self.linear.apply(z, parameters) + value
