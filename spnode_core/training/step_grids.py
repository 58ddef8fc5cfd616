"""The step grid that a dataset suggests: its own times, or a grid like them."""

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from spnode_core.dataset import Dataset
from spnode_core.deviations import spread
from spnode_core.spec import GridStepsSpec, UniformStepsSpec
from spnode_core.timegrid import TimeGrid

MOST_STEPS = 500
"""A rollout over the data takes at most this many steps; its cost is theirs."""
_MOST_POOLED = 200
_SAME = 1e-9
_STEPS_PER_DECADE = 6
_MOST_LOOKED_AT = 200
UNRESOLVED = 0.1
"""Samples that tell less than this of what happens between them (see below) miss it."""
# Multiples of the golden ratio, and of this, leave fractions that are spread evenly.
_SHORTER = (1 + 5**0.5) / 2 - 0.5


def step_grid(dataset: Dataset) -> tuple[GridStepsSpec | UniformStepsSpec, str]:
    """Choose the times at which a surrogate of this dataset steps.

    Returns:
        The grid, and why it was chosen.
    """
    # Elapsed times are differences: of seconds since 1970 they are 2e-7 off.
    starts = float(np.abs(dataset.times[:, 0]).max())
    rounding = 4 * float(np.finfo(np.float64).eps) * starts
    pooled = _distinct(dataset.elapsed[dataset.present], rounding)
    apart = np.abs(dataset.elapsed - dataset.elapsed[0])
    same = bool((apart <= _SAME * dataset.elapsed + rounding).all())
    if len(pooled) - 1 <= (MOST_STEPS if same else _MOST_POOLED):
        why = "all trajectories share these times" if same else "all times of the data"
        return as_steps(pooled, rounding), f"{why}; no sample needs a partial step"
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


def missed_between(dataset: Dataset) -> float:
    """How much happens between samples that samples do not tell.

    Every other sample is interpolated (monotone cubic, over the number of the sample)
    from those beside it.

    Returns:
        RMSE of the worst state over its standard deviation; 0 where trajectories are
        too short to tell.
    """
    rows = np.linspace(0, dataset.trajectories - 1, _MOST_LOOKED_AT).round().astype(int)
    masks = dataset.mask[np.unique(rows)]
    states = np.where(masks, dataset.states[np.unique(rows)], 0.0)
    states = states / np.maximum(np.abs(states).max(axis=(0, 1)), 1e-300)
    errors, there = np.zeros_like(states), np.zeros_like(masks)
    for row, (values, mask) in enumerate(zip(states, masks, strict=True)):
        places = np.flatnonzero(mask.all(axis=1))
        kept, left_out = places[::2], places[1::2]
        left_out = left_out[left_out < kept[-1]] if len(kept) > 1 else left_out[:0]
        if left_out.size:
            told = PchipInterpolator(kept, values[kept])(left_out)
            errors[row, left_out] = told - values[left_out]
            there[row, left_out] = True
    if not there.any():
        return 0.0
    squares = np.mean(errors**2, axis=(0, 1), where=there)
    return float(np.max(np.sqrt(squares) / spread(states, masks)))


def shifted_steps(
    steps: GridStepsSpec | UniformStepsSpec,
) -> GridStepsSpec | UniformStepsSpec:
    """A grid of shorter steps that samples on the given one lie anywhere between.

    A surrogate that steps from sample to sample learns states at the ends of its steps
    alone, whatever it makes of the times inside them. On this grid samples lie at all
    parts of a step.
    """
    if isinstance(steps, UniformStepsSpec):
        return UniformStepsSpec(step=steps.step / _SHORTER)
    grid = TimeGrid.from_spec(steps)
    times = grid.times
    places = np.arange(1, np.ceil((len(times) - 1) * _SHORTER)) / _SHORTER
    numbers = np.arange(len(times))
    if grid.is_logarithmic:
        first = places < 1
        logarithms = np.interp(places, numbers[1:], np.log(times[1:]))
        inner = np.where(first, places * times[1], np.exp(logarithms))
    else:
        inner = np.interp(places, numbers, times)
    return GridStepsSpec(times=(0.0, *inner.tolist(), float(times[-1])))


def as_steps(
    times: NDArray[np.float64], rounding: float = 0.0
) -> GridStepsSpec | UniformStepsSpec:
    """The grid of these times, uniform (so without an end) where their steps are.

    Args:
        times: From 0.
        rounding: Error of each.
    """
    widths = np.diff(times)
    if len(widths) > 1 and np.ptp(widths) <= 1e-6 * widths.max() + 4 * rounding:
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


def _distinct(times: NDArray[np.float64], rounding: float) -> NDArray[np.float64]:
    """Sorted times without those that equal their predecessor up to rounding."""
    ordered = np.unique(times)
    new = np.diff(ordered, prepend=-np.inf) > _SAME * ordered + rounding
    return ordered[new | (ordered == 0)]
