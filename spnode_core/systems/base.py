"""What a benchmark system offers: equations, a sampler, a reference solution."""

import abc
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class AbstractSystem(abc.ABC):
    """An autonomous system ``x' = F(x)`` with a sampler and a trusted solver."""

    name: ClassVar[str]
    equations: ClassVar[str]
    """The equations, in Markdown."""
    states: tuple[str, ...]
    units: tuple[str, ...] = ()
    time_unit: str = ""
    conserved: ClassVar[dict[str, dict[str, float]]] = {}
    positive: ClassVar[bool] = False

    @abc.abstractmethod
    def sample(self, trajectories: int, seed: int) -> Floats:
        """Draw initial states, ``(trajectory, state)``."""

    @abc.abstractmethod
    def times(self) -> Floats:
        """Times at which a dataset of this system is sampled, ``(time,)``."""

    @abc.abstractmethod
    def reference(
        self, x0: Floats, times: Floats, *, rtol: float = 1e-9, atol: float = 1e-13
    ) -> Floats:
        """Solve to a stated tolerance.

        Args:
            x0: Initial states at ``times[0]``, ``(trajectory, state)``.
            times: Increasing times, ``(time,)``.
            rtol: Relative tolerance of the solver.
            atol: Absolute tolerance of the solver.

        Returns:
            States, ``(trajectory, time, state)``.
        """
