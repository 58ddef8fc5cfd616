"""The unit box in which unknowns are searched: their bounds, each in its own scale."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from spnode_core.calibration.problem import Unknown

Floats = NDArray[np.float64]
# Starts keep this distance from the bounds, where a search would stick.
_MARGIN = 1e-2


@dataclass(frozen=True)
class Box:
    """``T(value) = low + width * v`` with ``v`` in [0, 1], ``T`` identity or logarithm.

    Args:
        low: Lower bounds, transformed.
        width: Distance of the bounds, transformed.
        is_log: Which unknowns have a logarithmic scale.
    """

    low: Floats
    width: Floats
    is_log: NDArray[np.bool_]

    @classmethod
    def of(cls, unknowns: Sequence[Unknown]) -> "Box":
        """The box of some unknowns."""
        is_log = np.array([each.spec.is_log for each in unknowns])
        bounds = np.array([(each.spec.lower, each.spec.upper) for each in unknowns])
        low, high = np.where(
            is_log[:, None], np.log(np.where(is_log[:, None], bounds, 1.0)), bounds
        ).T
        return cls(low, high - low, is_log)

    def values(self, v: Floats) -> Floats:
        """Physical values of points of the box, ``(…, unknown)``."""
        t = self.low + self.width * v
        return np.where(self.is_log, np.exp(np.where(self.is_log, t, 0.0)), t)

    def points(self, values: Floats) -> Floats:
        """Points of the box of physical values."""
        logarithm = np.log(np.where(self.is_log, values, 1.0))
        return (np.where(self.is_log, logarithm, values) - self.low) / self.width

    def slopes(self, v: Floats) -> Floats:
        """Derivative of the values by ``v``, one by one."""
        return self.width * np.where(self.is_log, self.values(v), 1.0)


def draw_starts(unknowns: Sequence[Unknown], count: int, seed: int) -> Floats:
    """Points of the box where searches begin, ``(start, unknown)``.

    A Latin hypercube; where ``start`` is given for some unknowns, the first search
    begins there, with the others in the middle.
    """
    drawn = qmc.LatinHypercube(len(unknowns), rng=seed).random(count)
    given = [each.spec.start for each in unknowns]
    if any(start is not None for start in given):
        box = Box.of(unknowns)
        middle = box.values(np.full(len(unknowns), 0.5))
        first = [m if s is None else s for s, m in zip(given, middle, strict=True)]
        drawn[0] = box.points(np.array(first))
    return np.clip(drawn, _MARGIN, 1 - _MARGIN)
