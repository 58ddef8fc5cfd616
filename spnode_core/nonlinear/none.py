"""No nonlinear operator: the latent variables evolve linearly."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from spnode_core.nonlinear.base import AbstractNonlinearOperator


class NoOperator(AbstractNonlinearOperator):
    """``f = 0``, so that one step of any length is exact.

    Args:
        latent: Number of latent variables.

    Source:
        Lusch, Kutz & Brunton (2018), Nature Communications 9, 4950.
    """

    latent: int = eqx.field(static=True)

    def __call__(self, inputs: Float[Array, " input"]) -> Float[Array, " latent"]:
        """Zeros, 1/time."""
        return jnp.zeros(self.latent, jnp.float64)
