"""When things happen: the times at which states pass the middle of their range."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spnode_core.dataset import Dataset

Values = NDArray[np.float64]

# A trajectory in which a state moves less, of its standard deviation, has no events.
_LEAST_RANGE = 0.5


def timing_errors(predicted: Values, dataset: Dataset) -> dict[str, dict[str, Any]]:
    r"""``|t' - t| / t`` of the events, which an ignition or an oscillation consists of.

    An event is the passage of a state through the middle of the range that it has in
    a trajectory, up or down, its time by linear interpolation between samples. Events
    of a rollout and of the truth are compared in order. One before the first sample
    after the start is compared with the time of that sample, which tells no more.

    Args:
        predicted: Rollouts at the times of the dataset, of the shape of its states.
        dataset: The truth; samples that are missing are left out.

    Returns:
        For each state that has events: ``events``, their number in the truth;
        ``missed``, how many a rollout has too few or too many, over that number; and
        ``error``, the root mean square of the relative errors of the others' elapsed
        times, None where all are missed.
    """
    found = {}
    for i, name in enumerate(dataset.names):
        mask = dataset.mask[:, :, i]
        truth = dataset.states[:, :, i]
        least = _LEAST_RANGE * float(np.std(truth[mask])) if mask.any() else np.inf
        events, missed, errors = 0, 0, []
        for row in range(dataset.trajectories):
            at, kept = dataset.elapsed[row], mask[row]
            theirs, ours = truth[row][kept], predicted[row, :, i][kept]
            if len(theirs) < 2 or not np.ptp(theirs) > least:
                continue
            level = (theirs.min() + theirs.max()) / 2
            when, found_when = (_passages(at[kept], x, level) for x in (theirs, ours))
            both = min(len(when), len(found_when))
            events += len(when)
            missed += abs(len(when) - len(found_when))
            told = np.maximum(when[:both], at[kept][1])
            errors.append((found_when[:both] - when[:both]) / told)
        if not events:
            continue
        all_errors = np.concatenate(errors)
        error = float(np.sqrt(np.mean(all_errors**2))) if len(all_errors) else None
        found[name] = {"events": events, "missed": missed / events, "error": error}
    return found


def _passages(times: Values, x: Values, level: float) -> Values:
    """When a trajectory passes a level; never at its start."""
    above = x > level
    (before,) = np.nonzero(above[1:] != above[:-1])
    part = (level - x[before]) / (x[before + 1] - x[before])
    passed = times[before] + part * (times[before + 1] - times[before])
    return passed[passed > times[0]]
