"""The implicit-explicit Runge-Kutta method, a baseline for the exponential ones."""

from math import sqrt
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from spnode_core.integrators.base import AbstractIntegrator, Forcing, Propagators
from spnode_core.linear.base import AbstractLinearOperator

_GAMMA = 1 - 1 / sqrt(2)


class Resolvent(eqx.Module):
    """``S = (I - h gamma A)^-1`` and ``R = h A S`` for one step."""

    inverse: Float[Array, "latent latent"]
    rate: Float[Array, "latent latent"]


class IMEXSSP2(AbstractIntegrator):
    r"""IMEX-SSP2(2,2,2): ``A`` implicit, ``f`` explicit, order 2 if nothing is stiff.

    With :math:`\gamma = 1 - 1/\sqrt2` and :math:`S = (I - h \gamma A)^{-1}`,

    .. math:: Z_1 &= S z, \quad
       Z_2 = S [z + h f(Z_1) + h (1 - 2\gamma) A Z_1] \\
       z_+ &= z + \tfrac h2 [f(Z_1) + f(Z_2) + A Z_1 + A Z_2]

    Not exact even for ``f = 0``: a baseline, not a recommendation.

    Source:
        Pareschi & Russo (2005), J. Sci. Comput. 25, 129-155, Table II,
        doi:10.1007/s10915-004-4636-4.
    """

    order: ClassVar[int] = 2

    def propagators(
        self,
        linear: AbstractLinearOperator,
        step: Float[Array, ""],
        parameters: Float[Array, " parameter"] | None,
        *,
        is_relaxation: bool = False,
    ) -> Propagators:
        """``S`` and ``h A S``, which is 0 at ``h = 0``."""
        scaled = step * linear.matrix(parameters)
        identity = jnp.eye(scaled.shape[0], dtype=scaled.dtype)
        inverse = jnp.linalg.inv(identity - _GAMMA * scaled)
        return (Resolvent(inverse, scaled @ inverse),)

    def step(
        self,
        forcing: Forcing,
        propagators: Propagators,
        step: Float[Array, ""],
        z: Float[Array, " latent"],
    ) -> Float[Array, " latent"]:
        """One step of IMEX-SSP2(2,2,2)."""
        (resolvent,) = propagators
        first = step * forcing(resolvent.inverse @ z)
        first_linear = resolvent.rate @ z
        right = z + first + (1 - 2 * _GAMMA) * first_linear
        second = step * forcing(resolvent.inverse @ right)
        return z + (first + second + first_linear + resolvent.rate @ right) / 2
