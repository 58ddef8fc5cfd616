r"""Split-conformal prediction intervals around rollouts.

The score of a sample is :math:`|T_i(\hat x_i) - T_i(x_i)|`, ``T`` being what the state
was learned in. In each bin of elapsed time the radius for a coverage ``c`` is the
smallest ``q`` with

.. math:: \sum_{k=1}^{n} \frac{1}{n + 1} \frac{1}{N_k}
   \#\{\text{samples of trajectory } k \text{ with score} \le q\} \ge c

over ``n`` held-out trajectories. For a new trajectory that is drawn as those were, a
state at one of its sample times in the bin, chosen at random, then lies within the
radius with probability ``c`` at least, on average over such draws: one time and one
state at once, not the whole trajectory. Nothing here imports JAX.

Source:
    Lee, Barber & Willett (2023), arXiv 2306.06342 (repeated measurements); Vovk,
    Gammerman & Shafer (2005), Algorithmic Learning in a Random World.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spnode_core.spec import IntervalsSpec, ScalingKind

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]

COVERAGES = (0.5, 0.8, 0.9, 0.95)
"""What is kept, where there are trajectories enough."""
# Bins are joined until they have as many trajectories as the largest coverage takes.
_ENOUGH = 19
# Radii are rounded up to so many digits.
_DIGITS = 4


def calibrated(
    predicted: Values,
    truth: Values,
    mask: Mask,
    elapsed: Values,
    *,
    edges: Values,
    kinds: tuple[ScalingKind, ...],
    widths: Values,
    positive: bool = False,
) -> IntervalsSpec | None:
    """Radii from held-out trajectories; None where no coverage can be promised.

    Args:
        predicted: Rollouts, ``(trajectory, time, state)``, physical units.
        truth: Samples of the same shape.
        mask: Where there is a sample.
        elapsed: Times since the start, ``(trajectory, time)``. Starts are left out.
        edges: Bounds of bins of elapsed time; thin ones are joined.
        kinds: How each state was normalised.
        widths: What asinh divides by and a logarithm is cut off at.
        positive: Whether no state is ever below 0.
    """
    mask = mask & (elapsed > 0)[..., None]
    if not mask.any(axis=(0, 1)).all():
        return None
    scores = _scores(predicted, truth, kinds, widths)
    edges = _joined(edges, mask, elapsed)
    index = _bin_of(edges, elapsed)
    radii = np.empty((len(COVERAGES), len(edges) - 1, truth.shape[2]))
    fewest = len(truth)
    for number in range(len(edges) - 1):
        here = mask & (index == number)[..., None]
        for state in range(truth.shape[2]):
            radii[:, number, state], count = _radii(
                scores[..., state], here[..., state]
            )
            fewest = min(fewest, count)
    kept = np.isfinite(radii).all(axis=(1, 2))
    if not kept.any():
        return None
    return IntervalsSpec(
        coverages=tuple(np.array(COVERAGES)[kept].tolist()),
        trajectories=fewest,
        edges=tuple(edges.tolist()),
        kinds=kinds,
        widths=tuple(widths.tolist()),
        positive=positive,
        radii=tuple(tuple(map(tuple, table)) for table in _up(radii[kept]).tolist()),
    )


def interval_bounds(
    intervals: IntervalsSpec, x: Values, times: Values, coverage: float
) -> tuple[Values, Values]:
    """Lower and upper bounds of the intervals around rollouts, in physical units.

    Args:
        intervals: ``surrogate.signature.intervals``.
        x: Rollouts, ``(..., time, state)``, with all states.
        times: Their times, from the start of the rollout.
        coverage: One of ``intervals.coverages``.

    Raises:
        ValueError: It is none of them.
    """
    if coverage not in intervals.coverages:
        raise ValueError(f"coverage {coverage!r} is none of {intervals.coverages}")
    table = np.array(intervals.radii[intervals.coverages.index(coverage)])
    radius = table[_bin_of(np.array(intervals.edges), np.asarray(times, np.float64))]
    kinds, widths = intervals.kinds, np.array(intervals.widths)
    centre = _transformed(x, kinds, widths)
    lower = _restored(centre - radius, kinds, widths)
    upper = _restored(centre + radius, kinds, widths)
    lower = np.maximum(lower, 0.0) if intervals.positive else lower
    # Rounding, and predictions below what a logarithm was cut off at.
    return np.minimum(lower, x), np.maximum(upper, x)


def measured_coverage(
    intervals: IntervalsSpec, predicted: Values, truth: Values, mask: Mask, elapsed: Any
) -> dict[str, Any]:
    """How much of the truth the intervals hold on other trajectories, by coverage.

    Args:
        intervals: What was calibrated.
        predicted: Rollouts, ``(trajectory, time, state)``, physical units.
        truth: Samples of the same shape.
        mask: Where there is a sample.
        elapsed: Times since the start, ``(trajectory, time)``.
    """
    mask = mask & (elapsed > 0)[..., None]
    measured = []
    for coverage in intervals.coverages:
        held = np.zeros_like(mask)
        for row, (x, times) in enumerate(zip(predicted, elapsed, strict=True)):
            lower, upper = interval_bounds(intervals, x, times, coverage)
            held[row] = (lower <= truth[row]) & (truth[row] <= upper)
        count = mask.sum(axis=(0, 1))
        by_state = (held & mask).sum(axis=(0, 1))[count > 0] / count[count > 0]
        measured.append(
            {
                "coverage": coverage,
                "measured": float(np.mean(held[mask])),
                "lowest_of_a_state": float(by_state.min()),
            }
        )
    return {
        "calibration_trajectories": intervals.trajectories,
        "largest_coverage": intervals.largest,
        "measured": measured,
    }


def _scores(
    predicted: Values, truth: Values, kinds: tuple[ScalingKind, ...], widths: Values
) -> Values:
    """Scores by sample; infinite where no interval of its kind can hold the truth."""
    is_log = np.array([kind == "log" for kind in kinds])
    never = is_log & (np.nan_to_num(truth, nan=1.0) <= 0)
    positive = np.where(is_log & ~never, truth, 1.0)
    exact = np.where(is_log, np.log(positive), _transformed(truth, kinds, widths))
    scores = np.abs(_transformed(predicted, kinds, widths) - exact)
    return np.where(never, np.inf, scores)


def _radii(scores: Values, mask: Mask) -> tuple[Values, int]:
    """Radius of one state in one bin for each coverage, and from how many."""
    per_row = mask.sum(axis=1)
    count = int((per_row > 0).sum())
    weights = np.broadcast_to(
        1.0 / np.maximum(per_row, 1)[:, None] / (count + 1), mask.shape
    )
    order = np.argsort(scores[mask])
    reached = np.cumsum(weights[mask][order])
    place = np.searchsorted(reached, np.array(COVERAGES) - 1e-9)
    return np.append(scores[mask][order], np.inf)[place], count


def _joined(edges: Values, mask: Mask, elapsed: Values) -> Values:
    """Edges of bins that have enough trajectories for every state."""
    index, states = _bin_of(edges, elapsed), mask.shape[2]
    enough = min(_ENOUGH, int(mask.any(axis=1).sum(axis=0).min()))
    kept, seen = [edges[0]], np.zeros((len(mask), states), bool)
    for number, upper in enumerate(edges[1:]):
        seen |= (mask & (index == number)[..., None]).any(axis=1)
        if (seen.sum(axis=0) >= enough).all():
            kept.append(upper)
            seen[:] = False
    # What is left over belongs to the last bin that is full.
    return np.array([*kept[:-1], edges[-1]] if len(kept) > 1 else edges[[0, -1]])


def _bin_of(edges: Values, elapsed: Values) -> NDArray[np.intp]:
    """Index of the bin of each time, which includes its upper edge."""
    return np.searchsorted(edges[1:-1], elapsed * (1 - 1e-9))


def _up(radii: Values) -> Values:
    """Rounded up to a few digits: what is stored is read by people, and is large."""
    unit = 10.0 ** (np.floor(np.log10(np.maximum(radii, 1e-300))) - _DIGITS + 1)
    rounded = np.ceil(radii / unit) * unit
    # Of 0.12340000000000001 too, so that few digits are written.
    return np.array([float(f"{r:.{_DIGITS}g}") for r in rounded.flat]).reshape(
        radii.shape
    )


def _transformed(x: Values, kinds: tuple[ScalingKind, ...], widths: Values) -> Values:
    found = np.array(x, np.float64)
    for column, kind in enumerate(kinds):
        if kind == "log":
            found[..., column] = np.log(np.maximum(x[..., column], widths[column]))
        elif kind == "asinh":
            found[..., column] = np.arcsinh(x[..., column] / widths[column])
    return found


def _restored(values: Values, kinds: tuple[ScalingKind, ...], widths: Values) -> Values:
    found = np.array(values)
    largest = np.finfo(np.float64).max
    with np.errstate(over="ignore"):
        for column, kind in enumerate(kinds):
            if kind == "log":
                found[..., column] = np.exp(values[..., column])
            elif kind == "asinh":
                found[..., column] = widths[column] * np.sinh(values[..., column])
    return np.clip(found, -largest, largest)
