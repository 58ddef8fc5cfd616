"""Robertson's autocatalytic reaction: three species, eleven decades of time.

``y1' = -0.04 y1 + 1e4 y2 y3``, ``y2' = 0.04 y1 - 1e4 y2 y3 - 3e7 y2^2``,
``y3' = 3e7 y2^2``; the sum of the three is conserved.
"""

from typing import ClassVar

import numpy as np

from spnode_core.errors import TrainingError
from spnode_core.systems.base import AbstractSystem, Floats


class Robertson(AbstractSystem):
    """Robertson's reaction from perturbed starts near (1, 0, 0).

    Args:
        points: Logarithmic sampling times, beside the start.
        end: Last time; the first is ``1e-5``.

    Source:
        Robertson (1966); the sampler is that of arXiv 2503.01775, section 4.2.
    """

    name: ClassVar[str] = "robertson"
    equations: ClassVar[str] = (
        "y1' = -0.04 y1 + 1e4 y2 y3; y2' = 0.04 y1 - 1e4 y2 y3 - 3e7 y2²; y3' = 3e7 y2²"
    )
    states = ("y1", "y2", "y3")
    conserved: ClassVar[dict[str, dict[str, float]]] = {
        "mass": {"y1": 1.0, "y2": 1.0, "y3": 1.0}
    }
    positive: ClassVar[bool] = True

    def __init__(self, *, points: int = 50, end: float = 1e5) -> None:
        self.points = points
        self.end = end

    def sample(self, trajectories: int, seed: int) -> Floats:
        """``y1 = 1 - U(0, .1)``, ``y2 = 1e-5 U(0, .1)``, ``y3 = U(0, .1)``."""
        draw = np.random.default_rng(seed).uniform(0.0, 0.1, (trajectories, 3))
        return draw * [-1.0, 1e-5, 1.0] + [1.0, 0.0, 0.0]

    def times(self) -> Floats:
        """Return 0, then logarithmic times from 1e-5."""
        return np.append(0.0, np.logspace(-5, np.log10(self.end), self.points))

    def reference(
        self, x0: Floats, times: Floats, *, rtol: float = 1e-9, atol: float = 1e-13
    ) -> Floats:
        """Solve by LSODA with the analytic Jacobian, a trajectory at a time.

        Raises:
            TrainingError: LSODA gave up.
        """
        return np.stack([_solve(start, times, rtol, atol) for start in x0])


def _solve(start: Floats, times: Floats, rtol: float, atol: float) -> Floats:
    # SciPy loads here alone: a gateway describes systems without it.
    from scipy.integrate import odeint

    states, information = odeint(
        derivative,
        start,
        times,
        Dfun=jacobian,
        rtol=rtol,
        atol=atol,
        tfirst=True,
        full_output=True,
        mxstep=100_000,
    )
    if information["message"] != "Integration successful.":
        raise TrainingError(f"LSODA failed from {start!r}: {information['message']}")
    return states


def derivative(t: float, y: Floats) -> tuple[float, float, float]:
    """The right-hand side; of Python's own numbers, which are faster here."""
    y1, y2, y3 = y.tolist()
    slow = -0.04 * y1 + 1e4 * y2 * y3
    fast = 3e7 * y2 * y2
    return slow, -slow - fast, fast


def jacobian(t: float, y: Floats) -> list[list[float]]:
    """Its derivative by the state."""
    _, y2, y3 = y.tolist()
    return [
        [-0.04, 1e4 * y3, 1e4 * y2],
        [0.04, -1e4 * y3 - 6e7 * y2, -1e4 * y2],
        [0.0, 6e7 * y2, 0.0],
    ]
