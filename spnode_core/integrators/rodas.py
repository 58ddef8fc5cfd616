"""RODAS4, the linearly implicit method of order 4: cheap where systems are small."""

from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from spnode_core.integrators.base import Forcing, Propagators
from spnode_core.integrators.rosenbrock import AbstractRosenbrock

_GAMMA = 0.25
_A = np.zeros((6, 5))
_A[1, 0] = 1.544
_A[2, :2] = 0.9466785280815826, 0.2557011698983284
_A[3, :3] = 3.314825187068521, 2.896124015972201, 0.9986419139977817
_A[4, :4] = 1.221224509226641, 6.019134481288629, 12.53708332932087, -0.6878860361058950
_A[5] = [*_A[4, :4], 1.0]
_C = np.zeros((6, 5))
_C[1, 0] = -5.6688
_C[2, :2] = -2.430093356833875, -0.2063599157091915
_C[3, :3] = -0.1073529058151375, -9.594562251023355, -20.47028614809616
_C[4, :4] = 7.496443313967647, -10.24680431464352, -33.99990352819905, 11.70890893206160
_C[5] = [
    8.083246795921522,
    -7.981132988064893,
    -31.52159432874371,
    16.31930543123136,
    -6.058818238834054,
]
# Partial fractions of the (1, 2) Pade approximation of the exponential.
_POLE = 1 / 3 + 1j * np.sqrt(1 / 18)
_WEIGHT = (1 - 1 / (6 * _POLE)) / (1 - np.conj(_POLE) / _POLE)

Derivative = Callable[[Float[Array, " latent"]], Float[Array, " latent"]]


class RODAS4(AbstractRosenbrock):
    """RODAS4 for ``z' = A z + f(z)``, for ``f`` that is itself stiff.

    One LU decomposition of ``I / gamma - h (A + f'(z))`` and six solutions a step: for
    a few latent variables less work than the matrix functions of ``exprb32``.

    Source:
        As of :func:`rodas_step`.
    """

    order: ClassVar[int] = 4

    def step(
        self,
        forcing: Forcing,
        propagators: Propagators,
        step: Float[Array, ""],
        z: Float[Array, " latent"],
    ) -> Float[Array, " latent"]:
        """One step of RODAS4."""
        (linear,) = propagators
        return rodas_step(lambda v: linear.apply(v) + forcing(v), step, z)


def rodas_step(
    derivative: Derivative, step: Float[Array, ""], z: Float[Array, " latent"]
) -> Float[Array, " latent"]:
    """One step of RODAS4: order 4, L-stable, stiffly accurate.

    Args:
        derivative: ``F``, 1/time, which does not depend on time.
        step: Length h, time.
        z: State at its start.

    Source:
        Hairer & Wanner (1996), Solving Ordinary Differential Equations II, section
        IV.7 and its code.
    """
    size = z.shape[0]
    # Multiplied by h: a step of length 0 changes nothing.
    matrix = jnp.eye(size) / _GAMMA - step * jax.jacfwd(derivative)(z)
    factored = jax.scipy.linalg.lu_factor(matrix)
    stages: list[Float[Array, " latent"]] = []
    for i in range(6):
        at = sum((a * k for a, k in zip(_A[i], stages, strict=False)), start=z)
        right = step * derivative(at)
        right += sum(
            (c * k for c, k in zip(_C[i], stages, strict=False)), start=jnp.zeros(size)
        )
        stages.append(jax.scipy.linalg.lu_solve(factored, right))
    last = sum((a * k for a, k in zip(_A[5], stages, strict=False)), start=z)
    return last + stages[5]


def rational_flow(
    matrix: Float[Array, "latent latent"],
) -> tuple[Float[Array, "latent latent"], Float[Array, "latent latent"]]:
    r"""``e^Z - I`` and ``phi_1(Z)`` by the L-stable Pade approximation of order 3.

    .. math:: e^z \approx \frac{1 + z/3}{1 - 2z/3 + z^2/6}

    Args:
        matrix: ``Z = h J``, dimensionless.
    """
    identity = jnp.eye(matrix.shape[0])
    inverse = jnp.linalg.inv(identity - _POLE * matrix)
    flow = 2 * jnp.real(_WEIGHT / _POLE * (inverse - identity))
    return flow, 2 * jnp.real(_WEIGHT * inverse)
