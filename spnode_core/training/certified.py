r"""Whether data may come from a system in which all trajectories come together.

A certified surrogate has one equilibrium for each value of parameters and controls and
forgets its start. That excludes limit cycles and chaos, several equilibria, and growth.
Each test refuses what is plain and lets pass what is not: a slow transient or noise
may look like anything.
"""

import numpy as np
from numpy.typing import NDArray

from spnode_core.dataset import Dataset
from spnode_core.errors import InvalidInput

Values = NDArray[np.float64]

# Part of a state's range over all data that counts as motion, beyond any noise.
_MOTION = 0.03
# Mean squared difference of neighbours over the variance: 2 for noise, and
# 2 (1 - cos(2 pi / k)) for an oscillation of k samples.
_RESOLVED = 0.5
# The last quarter of a trajectory spreads so much of what the third does.
_SUSTAINED = 0.85
# A path this many times as long as the extent of its points has turned; a way to and
# fro takes 4.
_TURNING = 3.5
_FEWEST_SAMPLES = 16
# Part of the trajectories that must show it.
_SOME, _MOST = 0.2, 0.5
# So many times faster in the last quarter than in the first half.
_SPEEDING_UP = 4.0
# Rest: a drift below this part of the range over the second half of the time.
_REST = 0.01
# States at rest are different by, and their inputs equal up to, parts of their ranges.
_DIFFERENT, _SAME = 0.25, 0.02
_HAS_MOVED = 0.1
_MOST_COMPARED = 400
_EXPECTED = (
    "data of a system that settles to one equilibrium for each value of parameters, "
    "controls and conserved sums; set certified to false to learn any other"
)


def check_settling(dataset: Dataset, conserved: dict[str, dict[str, float]]) -> None:
    """Refuse data that no contracting surrogate can follow.

    Args:
        dataset: The trajectories to train on.
        conserved: Sums that the surrogate will keep, so that they tell states apart.

    Raises:
        InvalidInput: The data recurs, grows, or rests at several states; where.
    """
    steady = np.flatnonzero(_has_constant_controls(dataset))
    paths = {int(row): _path(dataset, int(row)) for row in steady}
    paths = {row: path for row, path in paths.items() if len(path[0]) >= 2}
    _check_recurrence(paths)
    _check_growth(paths)
    _check_equilibria(dataset, paths, conserved)


def _check_recurrence(paths: dict[int, tuple[Values, Values]]) -> None:
    long = {r: x for r, (_, x) in paths.items() if len(x) >= _FEWEST_SAMPLES}
    recurring = [row for row, x in long.items() if _recurs(x)]
    if len(recurring) < max(1.0, _SOME * len(long)):
        return
    raise InvalidInput(
        "certified",
        found=f"true, though the data recurs: {len(recurring)} of {len(long)} "
        "trajectories turn round and round to their end, e.g. "
        f"trajectory {recurring[0]}; a certified surrogate has no limit cycles and no "
        "chaos",
        expected=_EXPECTED,
    )


def _recurs(x: Values) -> bool:
    """Whether a path turns in its second half, smoothly and no less in the end."""
    quarter = len(x) // 4
    tail = x[len(x) // 2 :]
    steps = np.diff(tail, axis=0)
    variance = tail.var(axis=0).sum()
    if variance < _MOTION**2 * x.shape[1]:
        return False
    roughness = (steps**2).mean(axis=0).sum() / variance
    length = np.linalg.norm(steps, axis=1).sum()
    # Between the diameter and twice that of the cloud of points.
    extent = np.linalg.norm(tail - tail.mean(axis=0), axis=1).max()
    before = x[-2 * quarter : -quarter].var(axis=0).sum()
    lasts = x[-quarter:].var(axis=0).sum() >= _SUSTAINED**2 * before
    return bool(roughness < _RESOLVED and length >= _TURNING * extent and lasts)


def _check_growth(paths: dict[int, tuple[Values, Values]]) -> None:
    long = {row: path for row, path in paths.items() if len(path[0]) >= 8}
    found = {row: factor for row, path in long.items() if (factor := _speed_up(*path))}
    if len(found) < max(1.0, _MOST * len(long)):
        return
    row, factor = next(iter(found.items()))
    raise InvalidInput(
        "certified",
        found=f"true, though the data grows: {len(found)} of {len(long)} trajectories "
        f"move faster and faster to their end, e.g. trajectory {row}, {factor:.3g} "
        "times as fast in its last quarter as in its first half",
        expected=_EXPECTED,
    )


def _speed_up(times: Values, x: Values) -> float | None:
    """Speed in the last quarter over that in the first half, where a state grows."""
    speeds = np.abs(np.diff(x, axis=0)) / np.diff(times)[:, None]
    half, quarter = len(speeds) // 2, len(speeds) // 4
    early = np.median(speeds[:half], axis=0)
    late = np.median(speeds[-quarter:], axis=0)
    away = np.abs(x - x[0])
    leaves = (away[-1] >= 0.9 * away.max(axis=0)) & (away[-1] >= _MOTION)
    at_last = np.abs(x[-1] - x[-quarter - 1]) >= 0.3 * away[-1]
    grows = leaves & at_last & (late >= _SPEEDING_UP * early)
    factors = late / np.maximum(early, 1e-300)
    return float(factors[grows].max()) if grows.any() else None


def _check_equilibria(
    dataset: Dataset,
    paths: dict[int, tuple[Values, Values]],
    conserved: dict[str, dict[str, float]],
) -> None:
    rest = {row: at for row, path in paths.items() if (at := _rest(*path)) is not None}
    rows = list(rest)[:_MOST_COMPARED]
    if len(rows) < 2:
        return
    at = np.stack([rest[row] for row in rows])
    moved = np.abs(at - np.stack([paths[row][1][0] for row in rows])) >= _HAS_MOVED
    inputs = _inputs(dataset, conserved)[rows]
    for i in range(1, len(rows)):
        same = (np.abs(inputs[:i] - inputs[i]) <= _SAME).all(axis=1)
        apart = np.abs(at[:i] - at[i]) * (moved[:i] & moved[i]) * same[:, None]
        if apart.max() < _DIFFERENT:
            continue
        j, state = np.unravel_index(int(apart.argmax()), apart.shape)
        raise InvalidInput(
            "certified",
            found=f"true, though the data has several equilibria: trajectories "
            f"{rows[j]} and {rows[i]} come to rest with {dataset.names[state]} "
            f"{100 * apart[j, state]:.0f} % of its range apart, under the same "
            "parameters, controls and conserved sums",
            expected=f"{_EXPECTED}; a quantity that each trajectory keeps belongs "
            "into surrogate.conserved",
        )


def _rest(times: Values, x: Values) -> Values | None:
    """Where a trajectory has come to rest; None where it still moves."""
    window = x[times >= times[-1] / 2]
    if len(window) < 2:
        return None
    middle = len(window) // 2
    drift = np.median(window[middle:], axis=0) - np.median(window[:middle], axis=0)
    if np.abs(drift).max() > _REST or window.std(axis=0).max() > _MOTION:
        return None
    return window.mean(axis=0)


def _has_constant_controls(dataset: Dataset) -> NDArray[np.bool_]:
    if not dataset.control_names:
        return np.ones(dataset.trajectories, bool)
    spread = np.ptp(dataset.controls, axis=1)
    size = np.abs(dataset.controls).max(axis=(0, 1))
    return (spread <= 1e-9 * size).all(axis=1)


def _path(dataset: Dataset, row: int) -> tuple[Values, Values]:
    """Times and states of the complete samples, in parts of each state's range."""
    low = np.nanmin(dataset.states, axis=(0, 1))
    extent = np.nanmax(dataset.states, axis=(0, 1)) - low
    there = dataset.mask[row].all(axis=1)
    scaled = (dataset.states[row, there] - low) / np.where(extent > 0, extent, 1.0)
    return dataset.elapsed[row, there], scaled


def _inputs(dataset: Dataset, conserved: dict[str, dict[str, float]]) -> Values:
    """Parameters, controls and sums of each trajectory, in parts of their ranges."""
    weights = np.array(
        [[sums.get(name, 0.0) for name in dataset.names] for sums in conserved.values()]
    ).reshape(len(conserved), len(dataset.names))
    columns = [dataset.states[:, 0] @ weights.T]
    if dataset.parameter_names:
        columns.append(dataset.parameters)
    if dataset.control_names:
        columns.append(dataset.controls[:, 0])
    values = np.concatenate(columns, axis=1)
    extent = np.ptp(values, axis=0)
    # What differs by rounding, or by the tolerance of a solver, is the same.
    still = extent <= 1e-6 * np.abs(values).max(axis=0)
    return values / np.where(still, np.inf, extent)
