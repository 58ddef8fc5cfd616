"""What a dataset looks like, in numbers fit for JSON, before anybody trains on it.

Nothing here imports JAX: files are described as they arrive.
"""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spnode_core.conserved_sums import conserved_sums
from spnode_core.dataset import Dataset
from spnode_core.spec import ScalingKind
from spnode_core.units import unit_problems

# A positive column over more decades than this is scaled by its logarithm.
_DECADES_FOR_LOG = 4.0
# A signed column whose peak exceeds its median modulus by this is scaled by asinh.
_PEAK_FOR_ASINH = 1e3
_LISTED_DUPLICATES = 20


def summarise(dataset: Dataset) -> dict[str, Any]:
    """Describe a dataset in numbers fit for JSON.

    Returns:
        Counts, range of times, and for each state its range, the decades its sizes
        span, whether it stays positive, how many samples are missing, its fastest time
        scale (its range over its steepest slope) and the normalisation that suits it.
        ``stiffness`` is the longest time over the fastest time scale of all states:
        how many of these a run lasts, as far as the samples resolve them.
        ``duplicates`` are trajectories equal to an earlier one, ``sums_found`` linear
        sums of states that no trajectory changes beside those that the dataset names,
        ``unit_problems`` what is odd about the units, in words. ``constant`` are states
        that are the same in all samples, ``constant_along`` those that differ between
        trajectories only, as parameters do.
    """
    present = dataset.present
    steps = np.diff(dataset.elapsed, axis=1)
    shortest, end = float(steps[steps > 0].min()), dataset.longest
    sums = conserved_sums(dataset)
    in_sums = {name for each in [*dataset.conserved.values(), *sums] for name in each}
    states = {
        name: _summarise_state(dataset, i, in_sums)
        for i, name in enumerate(dataset.names)
    }
    scales = [each["time_scale"] for each in states.values() if each["time_scale"]]
    return {
        "digest": dataset.digest,
        "trajectories": dataset.trajectories,
        "samples": int(present.sum()),
        "samples_per_trajectory": [
            int(present.sum(axis=1).min()),
            int(present.sum(axis=1).max()),
        ],
        "missing": int((~dataset.mask[present]).sum()),
        "duplicates": duplicates(dataset)[:_LISTED_DUPLICATES],
        "same_times": bool((dataset.elapsed == dataset.elapsed[0]).all()),
        "times": {
            "unit": dataset.time_unit,
            "start": float(dataset.times.min()),
            "shortest_step": shortest,
            "longest": end,
            "decades": _decades(shortest, end),
        },
        "unit_problems": unit_problems(dataset),
        **_unmoved(dataset),
        "stiffness": _ratio(end, min(scales)) if scales else None,
        "states": states,
        "parameters": _ranges(dataset.parameters, dataset.parameter_names),
        "controls": _ranges(dataset.controls, dataset.control_names),
        "conserved": dataset.conserved,
        "sums_found": sums,
        "positive": dataset.positive,
    }


def duplicates(dataset: Dataset) -> list[list[int]]:
    """Pairs ``[earlier, later]`` of trajectories that are the same, bit by bit."""
    first: dict[bytes, int] = {}
    found = []
    for row, digest in enumerate(trajectory_digests(dataset)):
        earlier = first.setdefault(digest, row)
        if earlier != row:
            found.append([earlier, row])
    return found


def trajectory_digests(dataset: Dataset) -> list[bytes]:
    """A digest of each trajectory; equal ones are the same, bit by bit."""
    found = []
    for row in range(dataset.trajectories):
        digest = hashlib.sha256()
        for array in (
            dataset.states[row],
            dataset.mask[row],
            dataset.elapsed[row],
            dataset.parameters[row],
            dataset.controls[row],
        ):
            digest.update(np.ascontiguousarray(array).tobytes())
        found.append(digest.digest())
    return found


def choose_kind(column: NDArray[np.float64]) -> ScalingKind:
    """``log`` for positive numbers over many decades, ``asinh`` for rare large ones.

    Args:
        column: Values of one column, NaN where missing.
    """
    values = column[np.isfinite(column)]
    if values.size == 0:
        return "linear"
    low, high = values.min(), values.max()
    if low > 0 and _decades(low, high) > _DECADES_FOR_LOG:
        return "log"
    median = np.median(np.abs(values))
    if low < 0 and median > 0 and max(high, -low) > _PEAK_FOR_ASINH * median:
        return "asinh"
    return "linear"


def _unmoved(dataset: Dataset) -> dict[str, list[str]]:
    """States that no trajectory changes, by whether they differ between those."""
    start = dataset.states[:, :1]
    unmoved = ((dataset.states == start) | ~dataset.mask).all(axis=(0, 1))
    is_one = (start == start[:1]).all(axis=(0, 1))
    names = np.array(dataset.names)
    return {
        "constant": names[unmoved & is_one].tolist(),
        "constant_along": names[unmoved & ~is_one].tolist(),
    }


def _summarise_state(dataset: Dataset, index: int, in_sums: set[str]) -> dict[str, Any]:
    x = dataset.states[:, :, index]
    values = x[dataset.mask[:, :, index]]
    sizes = np.abs(values[values != 0])
    steps = np.diff(dataset.times, axis=1)
    both = dataset.mask[:, 1:, index] & dataset.mask[:, :-1, index] & (steps > 0)
    with np.errstate(over="ignore"):
        slopes = np.abs(np.diff(x, axis=1)[both] / steps[both])
    extent = float(values.max() - values.min())
    steepest = float(slopes.max()) if slopes.size else 0.0
    return {
        "unit": dataset.units[index] if dataset.units else "",
        "minimum": float(values.min()),
        "maximum": float(values.max()),
        "decades": _decades(sizes.min(), sizes.max()) if sizes.size else 0.0,
        "positive": bool((values > 0).all()),
        "missing": int(dataset.present.sum() - values.size),
        "time_scale": _ratio(extent, steepest) or None,
        # What enters a sum is added up in physical units: its logarithm is no help.
        "normalisation": "linear"
        if dataset.names[index] in in_sums
        else choose_kind(values),
    }


def _decades(low: float, high: float) -> float:
    # The quotient may be beyond all numbers.
    return float(np.log10(high) - np.log10(low))


def _ratio(over: float, under: float) -> float | None:
    """A quotient, or None where it is no number."""
    with np.errstate(all="ignore"):
        found = float(np.divide(over, under))
    return found if np.isfinite(found) else None


def _ranges(values: np.ndarray, names: tuple[str, ...]) -> dict[str, Any]:
    columns = values.reshape(-1, len(names)) if names else values
    return {
        name: {"minimum": float(column.min()), "maximum": float(column.max())}
        for name, column in zip(names, columns.T, strict=False)
    }
