"""The given linear operator with few entries in each row."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from spnode_core.linear.action import SparseAction
from spnode_core.linear.base import AbstractLinearOperator


class SparseOperator(AbstractLinearOperator):
    """A given sparse ``A`` that training leaves alone.

    Args:
        size: Number of rows and of columns.
        rows: Row of each entry, from 0.
        columns: Column of each entry, from 0.
        values: Entries, 1/time; those at one place add up.
    """

    size: int = eqx.field(static=True)
    rows: tuple[int, ...] = eqx.field(static=True)
    columns: tuple[int, ...] = eqx.field(static=True)
    values: tuple[float, ...] = eqx.field(static=True)

    def matrix(
        self, parameters: Float[Array, " parameter"] | None = None
    ) -> Float[Array, "latent latent"]:
        """``A`` as a dense matrix, 1/time."""
        empty = np.zeros((self.size, self.size))
        np.add.at(empty, (np.array(self.rows), np.array(self.columns)), self.values)
        return jnp.asarray(empty)

    def action(
        self, parameters: Float[Array, " parameter"] | None = None
    ) -> SparseAction:
        """``v -> A v`` by the entries alone."""
        return SparseAction(
            jnp.asarray(np.array(self.rows, np.int32)),
            jnp.asarray(np.array(self.columns, np.int32)),
            jnp.asarray(np.array(self.values, np.float64)),
            self.size,
        )
