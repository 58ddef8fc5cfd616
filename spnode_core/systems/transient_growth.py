"""Two decaying modes whose sum first grows: ``x' = A x + strength q(x)``.

``A = [[-1, coupling], [0, -2]]`` has the spectrum of ``diag(-1, -2)`` for any coupling;
its logarithmic norm is positive for couplings above ``2 sqrt 2``.
"""

from typing import ClassVar, Literal

import numpy as np

from spnode_core.errors import TrainingError
from spnode_core.systems.base import AbstractSystem, Floats


class TransientGrowth(AbstractSystem):
    """The two-dimensional example of transient growth.

    Args:
        coupling: Off-diagonal entry of ``A``; 0 gives a normal matrix.
        strength: Factor of the nonlinear part.
        nonlinearity: ``square`` (x^2) or ``sine`` (sin x), both componentwise.
        points: Sampling times, uniform from 0 to ``end``.
        end: Last time.

    Source:
        arXiv 2503.01775, section 4.1; coupling 3.2 is where ETD1 and IMEX learn
        logarithmic norms of different signs.
    """

    name: ClassVar[str] = "transient_growth"
    equations: ClassVar[str] = (
        "x' = [[-1, c], [0, -2]] x + ε q(x), q(x) = x² or sin x componentwise"
    )
    states = ("x1", "x2")

    def __init__(
        self,
        *,
        coupling: float = 3.2,
        strength: float = 0.1,
        nonlinearity: Literal["square", "sine"] = "square",
        points: int = 50,
        end: float = 1.0,
    ) -> None:
        self.matrix = np.array([[-1.0, coupling], [0.0, -2.0]])
        self.strength = strength
        self.nonlinear = np.square if nonlinearity == "square" else np.sin
        self.points = points
        self.end = end

    def sample(self, trajectories: int, seed: int) -> Floats:
        """Draw starts uniformly from ``[-1, 1]^2``."""
        return np.random.default_rng(seed).uniform(-1.0, 1.0, (trajectories, 2))

    def times(self) -> Floats:
        """Return uniform times from 0 to ``end``."""
        return np.linspace(0.0, self.end, self.points)

    def reference(
        self, x0: Floats, times: Floats, *, rtol: float = 1e-9, atol: float = 1e-13
    ) -> Floats:
        """Solve by RK45, all trajectories as one system.

        Raises:
            TrainingError: RK45 gave up.
        """
        # SciPy loads here alone: a gateway describes systems without it.
        from scipy.integrate import solve_ivp

        solution = solve_ivp(
            self._slope,
            (times[0], times[-1]),
            np.ravel(x0),
            method="RK45",
            t_eval=times,
            rtol=rtol,
            atol=atol,
        )
        if not solution.success:
            raise TrainingError(f"RK45 failed: {solution.message}")
        return solution.y.reshape(len(x0), 2, len(times)).swapaxes(1, 2)

    def _slope(self, t: float, flat: Floats) -> Floats:
        x = flat.reshape(-1, 2)
        return np.ravel(x @ self.matrix.T + self.strength * self.nonlinear(x))
