"""Linear operators that are simply a matrix: trained without a constraint, or given."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from spnode_core.linear.base import AbstractLinearOperator


class DenseOperator(AbstractLinearOperator):
    """An unconstrained dense ``A``, for ablations: nothing keeps it stable.

    Args:
        rates: Initial decay rates, ``(latent,)``, 1/time: ``A = diag(-rates)``.
    """

    entries: Float[Array, "latent latent"]

    def __init__(self, rates: NDArray[np.float64]) -> None:
        self.entries = jnp.diag(-jnp.asarray(rates, jnp.float64))

    def matrix(
        self, parameters: Float[Array, " parameter"] | None = None
    ) -> Float[Array, "latent latent"]:
        """``A``, 1/time."""
        return self.entries


class FixedOperator(AbstractLinearOperator):
    """A given ``A`` that training leaves alone.

    Args:
        rows: Rows of ``A``, 1/time, all of one length.
    """

    rows: tuple[tuple[float, ...], ...] = eqx.field(static=True)

    def matrix(
        self, parameters: Float[Array, " parameter"] | None = None
    ) -> Float[Array, "latent latent"]:
        """``A``, 1/time."""
        return jnp.asarray(self.rows, jnp.float64)
