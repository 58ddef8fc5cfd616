"""A differential operator on a periodic interval, diagonal in Fourier space."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float
from numpy.typing import NDArray

from spnode_core.integrators.phi import phi
from spnode_core.linear.base import AbstractLinearOperator, AbstractPropagator


class SymbolPropagator(AbstractPropagator):
    """``phi_0 .. phi_order`` of each Fourier mode."""

    decay: Complex[Array, " mode"]
    phis: Complex[Array, "order mode"]

    def apply(
        self, order: int, vector: Float[Array, " latent"]
    ) -> Float[Array, " latent"]:
        """``phi_order(h A) v``."""
        return _filtered(self.phis[order], vector)

    def relax(self, vector: Float[Array, " latent"]) -> Float[Array, " latent"]:
        """``(I - e^{h A}) v``, by expm1; exactly 0 at ``h = 0``."""
        return _filtered(self.decay, vector)


class SymbolOperator(AbstractLinearOperator):
    r"""``A = c_0 + c_1 d/ds + c_2 d^2/ds^2 + ...`` on values at equidistant points.

    .. math:: \widehat{A z}_q = \lambda(q) \hat z_q, \quad
       \lambda(q) = \sum_k c_k \left(\tfrac{2\pi i q}{L}\right)^k

    exact for every wave that the points resolve; training leaves it alone. Odd
    derivatives of the shortest wave of an even number of points are 0, since its
    derivative vanishes at all of them.

    Args:
        points: Number of points n, the number of latent variables.
        length: Period L of the interval.
        coefficients: ``c_0, c_1, ...``; those of ``(0, 0, -1, 0, -1)`` give
            ``q^2 - q^4`` at ``L = 2 pi``.
    """

    points: int = eqx.field(static=True)
    length: float = eqx.field(static=True)
    coefficients: tuple[float, ...] = eqx.field(static=True)

    @property
    def is_elementwise(self) -> bool:
        """True: the modes do not mix."""
        return True

    def symbol(self) -> NDArray[np.complex128]:
        """``lambda(q)`` of the waves ``q = 0 .. n // 2``, 1/time."""
        waves = 2j * np.pi / self.length * np.arange(self.points // 2 + 1)
        powers = waves ** np.arange(len(self.coefficients))[:, None]
        values = np.asarray(self.coefficients, np.complex128) @ powers
        if self.points % 2 == 0:
            values[-1] = values[-1].real
        return values

    def matrix(
        self, parameters: Float[Array, " parameter"] | None = None
    ) -> Float[Array, "latent latent"]:
        """``A`` as a dense matrix, 1/time."""
        return jax.vmap(self.apply)(jnp.eye(self.points, dtype=jnp.float64)).T

    def apply(
        self,
        vector: Float[Array, " latent"],
        parameters: Float[Array, " parameter"] | None = None,
    ) -> Float[Array, " latent"]:
        """``A v``, 1/time."""
        return _filtered(jnp.asarray(self.symbol()), vector)

    def propagator(
        self,
        step: Float[Array, ""],
        order: int,
        parameters: Float[Array, " parameter"] | None = None,
    ) -> SymbolPropagator:
        """``phi_0(h A) .. phi_order(h A)`` of each Fourier mode."""
        z = step * jnp.asarray(self.symbol())
        return SymbolPropagator(
            decay=-jnp.expm1(z),
            phis=jnp.stack([phi(k, z) for k in range(order + 1)]),
        )


def _filtered(
    factors: Complex[Array, " mode"], vector: Float[Array, " latent"]
) -> Float[Array, " latent"]:
    size = vector.shape[0]
    return jnp.fft.irfft(factors * jnp.fft.rfft(vector), n=size)
