r"""Errors in units of how much each state varies, so that 1 means: nothing was learned.

.. math:: e_i = \frac{T_i(\hat x_i) - T_i(x_i)}{\mathrm{std}\, T_i(x_i)}

``T`` is what the state was learned in: itself, its logarithm or asinh. The standard
deviation is that of the held-out samples; a state that stands still there is measured
by its size.
"""

import dataclasses
import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]

STILL = 3e-7
"""A state that varies by less of its size stands still: single precision, in which
data often come, tells no more, and noise of a solver is no dynamics."""


@dataclasses.dataclass(frozen=True)
class Deviations:
    """Errors of one prediction of some trajectories.

    Args:
        names: Name of each state.
        errors: ``(trajectory, time, state)``, in units of the spread; 0 where missing.
        mask: Where there is a sample, of the same shape.
        elapsed: Times since the start of each trajectory, ``(trajectory, time)``.
    """

    names: tuple[str, ...]
    errors: Values
    mask: Mask
    elapsed: Values

    @property
    def overall(self) -> float:
        """Root mean square over all samples and states."""
        return _rms(self.errors, self.mask)

    @property
    def by_state(self) -> dict[str, float]:
        """The same for each state that was sampled."""
        return {
            name: _rms(self.errors[..., i], self.mask[..., i])
            for i, name in enumerate(self.names)
            if self.mask[..., i].any()
        }

    @property
    def worst_state(self) -> dict[str, Any]:
        """The state with the largest error, and that error."""
        found = self.by_state
        # The first that is not finite is the worst of all.
        name = max(found, key=lambda each: np.nan_to_num(found[each], nan=np.inf))
        return {"name": name, "normalised_rmse": found[name]}

    def over_time(self, edges: Values) -> list[dict[str, Any]]:
        """Error in each bin of elapsed time that has samples, with its worst state.

        Args:
            edges: Bounds of the bins, ``(bin + 1,)``; later times count as the last.
        """
        index, found = bin_of(edges, self.elapsed), []
        for number, (low, high) in enumerate(itertools.pairwise(edges)):
            mask = self.mask & (index == number)[..., None]
            if not mask.any():
                continue
            part = dataclasses.replace(self, mask=mask)
            found.append(
                {
                    "from": float(low),
                    "to": float(high),
                    "samples": int(mask.any(axis=2).sum()),
                    "normalised_rmse": part.overall,
                    "worst_state": part.worst_state["name"],
                }
            )
        return found

    @property
    def by_trajectory(self) -> Values:
        """The same for each trajectory, ``(trajectory,)``."""
        return np.array(
            [_rms(*pair) for pair in zip(self.errors, self.mask, strict=True)]
        )

    def over_trajectories(self) -> dict[str, Any]:
        """How errors differ between trajectories, so between initial conditions."""
        each = self.by_trajectory
        worst = int(np.argmax(np.nan_to_num(each, nan=np.inf)))
        return {
            "median": float(np.median(each)),
            "quantile_90": float(np.quantile(each, 0.9)),
            "worst": {"trajectory": worst, "normalised_rmse": float(each[worst])},
        }


def spread(values: Values, mask: Mask, size: Values | float = 1.0) -> Values:
    """Standard deviation of each normalised state, its size where it stands still.

    Args:
        values: Normalised states, ``(trajectory, time, state)``.
        mask: Where there is a sample.
        size: Of each state, in the same units (``baselines.sizes``).
    """
    count = np.maximum(mask.sum(axis=(0, 1)), 1)
    mean = np.sum(values, axis=(0, 1), where=mask) / count
    variance = np.sum((values - mean) ** 2, axis=(0, 1), where=mask) / count
    deviation = np.sqrt(variance)
    return or_size(deviation, np.asarray(size))


def or_size(deviation: Values, size: Values) -> Values:
    """Deviations; of what stands still its size, and 1 of what is 0 throughout."""
    fallback = np.where(size > 0, size, 1.0)
    return np.where(deviation > STILL * size, deviation, fallback)


def bin_of(edges: Values, elapsed: Values) -> NDArray[np.intp]:
    """Index of the bin of each time, which includes its upper edge."""
    return np.searchsorted(edges[1:-1], elapsed * (1 - 1e-9))


def _rms(errors: Values, mask: Mask) -> float:
    return float(np.sqrt(np.mean(errors[mask] ** 2)))
