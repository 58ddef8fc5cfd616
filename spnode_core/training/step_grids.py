"""The step grid that a dataset suggests: its own times, or a grid like them."""

import numpy as np
from numpy.typing import NDArray

from spnode_core.dataset import Dataset
from spnode_core.spec import GridStepsSpec, UniformStepsSpec
from spnode_core.timegrid import TimeGrid

MOST_STEPS = 500
"""A rollout over the data takes at most this many steps; its cost is theirs."""
_MOST_POOLED = 200
_SAME = 1e-9
_STEPS_PER_DECADE = 6


def step_grid(dataset: Dataset) -> tuple[GridStepsSpec | UniformStepsSpec, str]:
    """Choose the times at which a surrogate of this dataset steps.

    Returns:
        The grid, and why it was chosen.
    """
    pooled = _distinct(dataset.elapsed[dataset.present])
    same = bool(
        (np.abs(dataset.elapsed - dataset.elapsed[0]) <= _SAME * dataset.elapsed).all()
    )
    if len(pooled) - 1 <= (MOST_STEPS if same else _MOST_POOLED):
        why = "all trajectories share these times" if same else "all times of the data"
        return as_steps(pooled), f"{why}; no sample needs a partial step"
    end = float(pooled[-1])
    positive = pooled[1:]
    # Uniform samples have their median in the middle, logarithmic ones far before it.
    if np.median(positive) < 0.1 * end:
        start = max(float(np.quantile(positive, 0.01)), end * 1e-15)
        count = int(np.clip(_STEPS_PER_DECADE * np.log10(end / start), 20, MOST_STEPS))
        times = np.append(0.0, np.geomspace(start, end, count))
        return as_steps(times), "times differ and cover decades: logarithmic steps"
    widths = np.diff(dataset.elapsed, axis=1)
    width = float(np.median(widths[widths > 0]))
    steps = int(np.clip(round(end / width), 1, MOST_STEPS))
    return UniformStepsSpec(step=end / steps), "times differ: uniform steps as in them"


def as_steps(times: NDArray[np.float64]) -> GridStepsSpec | UniformStepsSpec:
    """The grid of these times, uniform (so without an end) where their steps are."""
    widths = np.diff(times)
    if len(widths) > 1 and np.ptp(widths) <= 1e-6 * widths.max():
        return UniformStepsSpec(step=float(times[-1] / len(widths)))
    return GridStepsSpec(times=tuple(times.tolist()))


def refined_steps(
    steps: GridStepsSpec | UniformStepsSpec, factor: int
) -> GridStepsSpec | UniformStepsSpec:
    """The grid with every step divided into as many."""
    if isinstance(steps, UniformStepsSpec):
        return UniformStepsSpec(step=steps.step / factor)
    times = TimeGrid.from_spec(steps).refined(factor).times
    return GridStepsSpec(times=tuple(times.tolist()))


def _distinct(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sorted times without those that equal their predecessor up to rounding."""
    ordered = np.unique(times)
    new = np.diff(ordered, prepend=-1.0) > _SAME * ordered
    return ordered[new | (ordered == 0)]
