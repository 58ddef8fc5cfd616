"""The rest of each trajectory from a later sample on, as trajectories of their own.

A rollout may start anywhere, but training data begin where they begin. Elapsed times
from a later sample mostly lie off the grid of steps, so these try that too.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spnode_core.dataset import Dataset

# Trajectories and samples of each that are looked at.
_MOST_TRAJECTORIES = 64
_MOST_SAMPLES = 16


class Restarts(NamedTuple):
    """Pieces of trajectories, and where they were cut from."""

    dataset: Dataset
    rows: NDArray[np.intp]
    """The trajectory of each piece."""
    samples: NDArray[np.intp]
    """Its samples there, ``(piece, time)``; the last one repeats, masked out."""


def restarts(dataset: Dataset, seed: int) -> Restarts | None:
    """Cut each trajectory at a complete sample after its first, chosen at random.

    With controls all are cut at the same sample, so that what was held over an interval
    still is, and no sample is left out.

    Args:
        dataset: The trajectories.
        seed: Source of the choice.

    Returns:
        At most 64 pieces, each of its first sample and up to 15 spread over what comes
        after it; None where no trajectory has as many as three samples.
    """
    draws = np.random.default_rng([seed, 29])
    present = dataset.present
    last = present.shape[1] - 1 - present[:, ::-1].argmax(axis=1)
    index = np.arange(present.shape[1])
    may = dataset.mask.all(axis=2) & (index > 0) & (index < last[:, None])
    rows = np.flatnonzero(may.any(axis=1))
    if not len(rows):
        return None
    rows = np.sort(draws.permutation(rows)[:_MOST_TRAJECTORIES])
    if dataset.control_names:
        # Where few trajectories go on they would say little.
        many = may[rows].sum(axis=0)
        start = int(draws.choice(np.flatnonzero(many >= many.max() / 2)))
        rows = rows[may[rows, start]]
        samples = np.arange(start, present.shape[1])[None]
        samples = np.minimum(samples, last[rows, None])
    else:
        starts = np.array([draws.choice(np.flatnonzero(may[row])) for row in rows])
        part = np.linspace(0.0, 1.0, min(_MOST_SAMPLES, present.shape[1]))
        ahead = np.ceil(part * (last[rows] - starts)[:, None] - 1e-9).astype(int)
        samples = starts[:, None] + ahead
    new = np.diff(samples, axis=1, prepend=-1) > 0
    along = {
        key: getattr(dataset, key)[rows[:, None], samples]
        for key in ("states", "times", "mask", "controls")
    }
    along["mask"] = along["mask"] & new[..., None]
    pieces = dataclasses.replace(dataset, **along, parameters=dataset.parameters[rows])
    return Restarts(pieces, rows, samples)
