"""Seeded cases: what the solver observed, what the calibration makes of it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.calibration import family
from spnode_core.calibration.calibrate import calibrate
from spnode_core.calibration.result import Calibration
from spnode_core.surrogate import Surrogate

Floats = NDArray[np.float64]

TIMES = np.logspace(-1, 3, 5)
OBSERVED = ("y1", "y2")
NOISE = np.array([0.01, 5e-7])
"""About 1 % of the largest y1 and of the usual y2 at the beginning."""
COVERAGE = 0.95
STARTS = 16
# Of the streams that cases are drawn from, so that no two tests share one.
_STREAM = 7
UNKNOWNS = {
    "parameters": {
        name: {"lower": value / family.FACTOR, "upper": value * family.FACTOR}
        | {"scale": "log"}
        for name, value in zip(family.PARAMETERS, family.NOMINAL.tolist(), strict=True)
    }
}


@dataclass(frozen=True)
class Case:
    """One case and what was found.

    Args:
        seed: Of the case.
        truth: The constants that made the observations.
        found: The calibration.
    """

    seed: int
    truth: Floats
    found: Calibration

    @property
    def alone(self) -> list[bool]:
        """Whether each constant lies in its own interval."""
        return self._within("interval")

    @property
    def at_once(self) -> bool:
        """Whether all constants lie in their simultaneous intervals."""
        return all(self._within("simultaneous"))

    def _within(self, name: str) -> list[bool]:
        pairs = zip(self.found.estimates, self.truth.tolist(), strict=True)
        return [
            getattr(each, name)[0] <= true <= getattr(each, name)[1]
            for each, true in pairs
        ]


def run_cases(surrogate: Surrogate, model_error: Floats, count: int) -> Iterator[Case]:
    """Calibrate so many seeded cases, one after the other.

    Args:
        surrogate: The trained family.
        model_error: Its rms error on held-out trajectories, by observed state.
        count: How many.
    """
    for seed in range(count):
        draws = np.random.default_rng([seed, _STREAM])
        x0 = family.SYSTEM.sample(1, 10_000 + seed)
        truth = family.draw_constants(1, draws)
        exact = family.solve(x0, truth, np.append(0.0, TIMES))[0, 1:, :2]
        found = calibrate(
            surrogate,
            TIMES,
            exact + NOISE * draws.normal(size=exact.shape),
            UNKNOWNS,
            states=OBSERVED,
            noise=NOISE,
            model_error=model_error,
            x0=x0[0],
            starts=STARTS,
            seed=seed,
            coverage=COVERAGE,
        )
        yield Case(seed, truth[0], found)
