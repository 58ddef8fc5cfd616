"""A matrix that is only ever multiplied with vectors, and never needs to be formed."""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Interval = tuple[Float[Array, ""], Float[Array, ""]]


class AbstractAction(eqx.Module):
    """``v -> A v``, with what matrix-free exponentials need to know of ``A``."""

    @abstractmethod
    def apply(self, vector: Float[Array, " latent"]) -> Float[Array, " latent"]:
        """``A v``."""

    @property
    @abstractmethod
    def transposed(self) -> "AbstractAction":
        """``v -> A^T v``."""

    @abstractmethod
    def discs(self) -> Interval:
        """Least ``a_jj - c_j`` and greatest ``a_jj + c_j``.

        ``c_j`` is the sum of the other moduli in column j. Half of the distance is the
        smallest 1-norm of ``A`` less a multiple of the identity; the middle of the two
        is that multiple.
        """


class DenseAction(AbstractAction):
    """The action of a dense matrix.

    Args:
        matrix: ``A``.
    """

    matrix: Float[Array, "latent latent"]

    def apply(self, vector: Float[Array, " latent"]) -> Float[Array, " latent"]:
        """``A v``."""
        return self.matrix @ vector

    @property
    def transposed(self) -> "DenseAction":
        """``v -> A^T v``."""
        return DenseAction(self.matrix.T)

    def discs(self) -> Interval:
        """The interval that the discs of the columns cover."""
        return _interval(jnp.diag(self.matrix), jnp.abs(self.matrix).sum(axis=0))


class SparseAction(AbstractAction):
    """The action of a matrix given by its entries; those at one place add up.

    Args:
        rows: Row of each entry.
        columns: Column of each entry.
        values: Entries.
        size: Number of rows and of columns.
    """

    rows: Int[Array, " entry"]
    columns: Int[Array, " entry"]
    values: Float[Array, " entry"]
    size: int = eqx.field(static=True)

    def apply(self, vector: Float[Array, " latent"]) -> Float[Array, " latent"]:
        """``A v``."""
        return self._sums(self.values * vector[self.columns], self.rows)

    @property
    def transposed(self) -> "SparseAction":
        """``v -> A^T v``."""
        return SparseAction(self.columns, self.rows, self.values, self.size)

    def discs(self) -> Interval:
        """An interval that contains the discs of the columns."""
        is_diagonal = self.rows == self.columns
        diagonal = self._sums(jnp.where(is_diagonal, self.values, 0.0), self.columns)
        others = jnp.where(is_diagonal, 0.0, jnp.abs(self.values))
        moduli = self._sums(others, self.columns) + jnp.abs(diagonal)
        return _interval(diagonal, moduli)

    def _sums(
        self, values: Float[Array, " entry"], places: Int[Array, " entry"]
    ) -> Float[Array, " latent"]:
        return jnp.zeros(self.size, values.dtype).at[places].add(values)


def _interval(
    diagonal: Float[Array, " latent"], moduli: Float[Array, " latent"]
) -> Interval:
    radius = moduli - jnp.abs(diagonal)
    return (diagonal - radius).min(), (diagonal + radius).max()
