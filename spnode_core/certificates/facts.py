"""What all certificates start from: A, its norm, and how fast f may change.

Each number is an upper bound (a decay: a lower one) that holds for every value of the
parameters in the training box.
"""

import dataclasses
from typing import TYPE_CHECKING

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from spnode_core.certificates.domain import parameter_extent
from spnode_core.certificates.lipschitz import Slopes, slopes_of
from spnode_core.certificates.norms import (
    Matrix,
    condition,
    log_norm,
    solve_lyapunov,
    spectral_norm,
)
from spnode_core.dynamics import Dynamics
from spnode_core.linear.base import AbstractLinearOperator
from spnode_core.linear.hurwitz import HurwitzOperator
from spnode_core.linear.modal import ModalOperator
from spnode_core.spec import LARGEST_CERTIFIED

if TYPE_CHECKING:
    from spnode_core.surrogate import Surrogate


@dataclasses.dataclass(frozen=True)
class Modes:
    """The decoupled modes of a modal operator, one entry for each latent variable.

    Args:
        decay: Smallest ``-Re(lambda)``, 1/time; below 0 where the mode may grow.
        modulus: Largest ``|lambda|``, 1/time.
        frequency: ``|Im(lambda)|``, 1/time.
        pairs: Number of oscillating pairs; they are the last latent variables.
    """

    decay: Matrix
    modulus: Matrix
    frequency: Matrix
    pairs: int

    @property
    def real(self) -> int:
        """Number of real modes."""
        return len(self.decay) - 2 * self.pairs


@dataclasses.dataclass(frozen=True)
class Facts:
    """Bounds on the parts of one surrogate.

    Args:
        surrogate: The model.
        dynamics: Its dynamics, with weights as they are used.
        matrix: A, 1/time; of a modal operator at the middle of the parameters.
        modes: Its modes, where it is modal.
        log_norm: ``mu_2(A)``, 1/time.
        norm: ``||A||_2``, 1/time.
        transform: ``T`` of the norm ``|z|_P = |T z|_2``.
        decay: ``-mu_P(A)``, 1/time; above 0 it is how fast the norm falls.
        source: Where P comes from, in words.
        slopes: Bounds on how fast f changes.
        shortest: Shortest step of the model.
        longest: Longest step of the model.
    """

    surrogate: "Surrogate"
    dynamics: Dynamics
    matrix: Matrix
    modes: Modes | None
    log_norm: float
    norm: float
    transform: Matrix
    decay: float
    source: str
    slopes: Slopes
    shortest: float
    longest: float

    @property
    def is_etd1(self) -> bool:
        """Whether the model steps by ETD1."""
        return self.surrogate.spec.integrator == "etd1"

    @property
    def within(self) -> tuple[str, ...]:
        """The assumption on parameters, where A depends on them."""
        depends = self.dynamics.linear.depends_on_parameters
        return ("parameters inside the training box",) if depends else ()


def facts_of(surrogate: "Surrogate") -> Facts | None:
    """The facts of a surrogate; None where it is too large for dense matrices."""
    if surrogate.signature.latent > LARGEST_CERTIFIED:
        return None
    # Compiled as a whole: one by one its many small operations take seconds.
    dynamics = eqx.filter_jit(lambda parts: parts.prepared())(surrogate.dynamics)
    linear = dynamics.linear
    modes = modes_of(surrogate)
    matrix = np.asarray(linear.matrix(middle(surrogate)), np.float64)
    if modes is None:
        transform, decay, source = _lyapunov(linear, matrix)
        worst, norm = log_norm(matrix), spectral_norm(matrix)
    else:
        transform, source = np.eye(len(matrix)), "P = I: the modes are decoupled"
        decay, norm = float(modes.decay.min()), float(modes.modulus.max())
        worst = -decay
    shortest, longest = _steps(surrogate)
    return Facts(
        surrogate=surrogate,
        dynamics=dynamics,
        matrix=matrix,
        modes=modes,
        log_norm=worst,
        norm=norm,
        transform=transform,
        decay=decay,
        source=source,
        slopes=slopes_of(surrogate, dynamics, matrix, modes, transform),
        shortest=shortest,
        longest=longest,
    )


def modes_of(surrogate: "Surrogate") -> Modes | None:
    """The modes of a modal operator over the training box of the parameters."""
    linear = surrogate.dynamics.linear
    if not isinstance(linear, ModalOperator):
        return None
    log_rates = np.asarray(linear.log_rates)
    # Over the training box each rate is slowest and fastest at one of its corners.
    extent = parameter_extent(surrogate) if linear.depends_on_parameters else []
    reach = np.abs(np.asarray(linear.sensitivity)) @ np.asarray(extent)
    slow, fast = (np.exp(log_rates + sign * reach) - linear.shift for sign in (-1, 1))
    pairs = linear.oscillating
    real = len(slow) - pairs
    turning = np.append(np.zeros(real), np.abs(np.asarray(linear.frequencies)))
    modulus = np.hypot(np.maximum(np.abs(slow), np.abs(fast)), turning)
    each = np.append(np.ones(real, int), np.full(pairs, 2))
    columns = (np.repeat(column, each) for column in (slow, modulus, turning))
    return Modes(*columns, pairs=pairs)


def _lyapunov(
    linear: AbstractLinearOperator, matrix: Matrix
) -> tuple[Matrix, float, str]:
    """``T``, ``-mu_P(A)`` and where P comes from."""
    size = len(matrix)
    if isinstance(linear, HurwitzOperator):
        transform = np.linalg.cholesky(np.asarray(linear.factors()[2])).T
        # T A T^-1 = L2^T (K - Q) L2 + shift; K is skew, and its rounding would count.
        q = np.asarray(linear.factors()[0])
        decay = -(log_norm(-transform @ q @ transform.T) + linear.shift)
        return transform, decay, "P of the factors of A = (-Q + K) P + shift I"
    direct = -log_norm(matrix)
    abscissa = float(np.linalg.eigvals(matrix).real.max())
    if direct > 0 or abscissa >= 0:
        return np.eye(size), direct, "P = I"
    transform = solve_lyapunov(matrix)
    if transform is None:
        return np.eye(size), direct, "P = I: the Lyapunov equation has no usable P"
    inner = transform @ matrix @ np.linalg.inv(transform)
    error = 10 * size * float(np.finfo(np.float64).eps) * condition(transform)
    decay = -(log_norm(inner) + error * spectral_norm(inner))
    return transform, decay, "P solves the Lyapunov equation A^T P + P A = -2 Q"


def middle(surrogate: "Surrogate") -> jnp.ndarray | None:
    """The scaled parameters at the middle of their box, where A depends on them."""
    if not surrogate.dynamics.linear.depends_on_parameters:
        return None
    return jnp.zeros(len(surrogate.signature.parameters))


def _steps(surrogate: "Surrogate") -> tuple[float, float]:
    steps = np.diff(surrogate.grid.times)
    return float(steps.min()), float(steps.max())
