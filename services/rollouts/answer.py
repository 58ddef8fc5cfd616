"""From an executor's arrays to the answer of a request.

Nothing that is not finite leaves in silence: a row that left the finite range fails the
request. Where the request says ``on_error: "mask"`` it is NaN (null in JSON) and
described instead, and sums over rows leave it out.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from services.errors import RolloutFailed
from services.rollouts.domain import all_inside, domain_fields
from services.rollouts.request import RANK, Arrays, Request
from services.rollouts.served import Served, are_all
from services.rollouts.work import Layout, Work
from spnode_core.intervals import interval_bounds

Fields = dict[str, Any]


def is_plain(served: Served, rows: Arrays, results: Arrays) -> bool:
    """Whether everything is finite and every row inside the training data.

    So are most batches; then none of their requests needs to look again.
    """
    finite = all(are_all(np.isfinite(array)) for array in results.values())
    return finite and all_inside(served, rows, results.get("distance"))


def answer(
    request: Request,
    served: Served,
    work: Work,
    layout: Layout,
    results: Arrays,
    *,
    plain: bool = False,
) -> Fields:
    """Shape the answer; arrays stay numpy arrays.

    Args:
        request: What was asked for.
        served: The version that was meant.
        work: What was computed.
        layout: How the answer is shaped.
        results: What came of it.
        plain: Whether ``is_plain`` has said so of the batch that it was in.

    Raises:
        RolloutFailed: A row is not finite, and the request does not mask; or none is
            left for a sum over rows.
    """
    results = dict(results)
    if not layout.spread:
        results.pop("spread", None)
    distance = results.pop("distance", None)
    if distance is not None and layout.repeats > 1:
        distance = distance[:: layout.repeats]
    if layout.columns is not None:
        results = layout.columns.assembled(results)
    times = work.shared["times"]
    failed = {} if plain else _failed_rows(results, times)
    masks = request.options.on_error == "mask"
    if failed:
        if not masks or not _may_mask(request, layout, len(failed), results):
            row, time = min(failed.items())
            left = _may_mask(request, layout, len(failed), results) and not masks
            has_others = left and len(failed) < len(next(iter(results.values())))
            raise RolloutFailed(row=row, time=time, has_others=has_others)
        results = _without(results, sorted(failed))
    fields: Fields = {
        "model": served.model,
        "version": served.version,
        "digest": served.digest,
        "times": times,
        **_results(request, layout, results, sorted(failed)),
    }
    inputs = work.rows
    if layout.repeats > 1:
        inputs = {name: array[:: layout.repeats] for name, array in inputs.items()}
    fields |= domain_fields(
        served,
        inputs,
        float(layout.times[-1]),
        distance=distance,
        listed=request.options.outputs.domain,
        is_known=plain,
    )
    if layout.coverage is not None:
        fields |= _intervals(served, layout, results["x"], times)
    if layout.grid is not None:
        fields["sweep"] = layout.grid.describe()
    if masks:
        fields["rows"] = [
            {"row": row, "code": "rollout_failed", "time": time}
            for row, time in sorted(failed.items())
        ]
    return fields


def _results(
    request: Request, layout: Layout, results: Arrays, failed: list[int]
) -> Fields:
    """What the operation gives, under the names of the answer."""
    operation = request.operation
    fields: Fields = {}
    if operation in ("rollout", "jvp", "vjp", "jacobian"):
        fields["x"] = _shaped(results["x"], layout, layout.states)
    if "spread" in results:
        fields["spread"] = _shaped(results["spread"], layout, layout.states)
    if "z" in results:
        fields["z"] = _shaped(results["z"], layout, None)
    if operation == "rollout":
        return fields
    if operation == "jvp":
        fields["jvp"] = _by_direction(
            results["tangents"],
            layout,
            lambda each: _shaped(each, layout, layout.states),
        )
    if operation == "jacobian":
        fields["jacobian"] = {
            name: _shaped(array, layout, None)
            for name, array in _group(results, "jacobian").items()
        }
    if operation == "objective":
        values = results["value"]
        fields["value"] = float(np.delete(values, failed).sum())
        fields["values"] = values if layout.batched else values[0]

    def summed(name: str, each: np.ndarray) -> np.ndarray:
        if not layout.batched:
            return each[0]
        # The gradient of an input that all rows shared is the sum of theirs.
        if layout.ranks[name] > RANK[name]:
            return each
        return np.delete(each, failed, axis=0).sum(axis=0)

    gradients = _group(results, "gradients")
    if operation in ("hvp", "objective"):
        field = "vjp" if operation == "hvp" else "gradient"
        fields[field] = {name: summed(name, each) for name, each in gradients.items()}
    many = {"vjp": gradients, "hvp": _group(results, "products")}
    if operation in many:
        fields[operation] = {
            name: _by_direction(array, layout, lambda each, n=name: summed(n, each))
            for name, array in many[operation].items()
        }
    return fields


def _intervals(
    served: Served, layout: Layout, x: np.ndarray, times: np.ndarray
) -> Fields:
    """Bounds of the prediction intervals, each of the shape of ``x``."""
    intervals = served.signature.intervals
    assert intervals is not None
    assert layout.coverage is not None
    lower, upper = interval_bounds(intervals, x, times, layout.coverage)
    return {
        "lower": _shaped(lower, layout, layout.states),
        "upper": _shaped(upper, layout, layout.states),
        "coverage": layout.coverage,
    }


def _group(results: Arrays, group: str) -> Arrays:
    return {
        name.partition(".")[2]: array
        for name, array in results.items()
        if name.startswith(f"{group}.")
    }


def _may_mask(request: Request, layout: Layout, failed: int, results: Arrays) -> bool:
    """Whether something is left of every sum over rows."""
    if failed < len(next(iter(results.values()))):
        return True
    if request.operation == "objective":
        return False
    shared = any(rank <= RANK[name] for name, rank in layout.ranks.items())
    sums = layout.batched and shared and request.operation in ("vjp", "hvp")
    return not sums


def _without(results: Arrays, failed: list[int]) -> Arrays:
    """The results with rows that failed all NaN, also where they are finite."""
    found = {}
    for name, array in results.items():
        found[name] = np.array(array)
        found[name][failed] = np.nan
    return found


def _failed_rows(results: Arrays, times: np.ndarray) -> dict[int, float]:
    """Rows with a value that is not finite, and the first time of one in ``x``."""
    found: dict[int, float] = {}
    for name, array in results.items():
        finite = np.isfinite(array)
        if finite.all():
            continue
        in_time = name in ("x", "spread", "z", "tangents")
        for row in np.flatnonzero(~finite.reshape(len(array), -1).all(axis=1)):
            bad = ~finite[row].all(axis=-1) if in_time else np.array([])
            bad = bad.any(axis=0) if name == "tangents" else bad
            first = float(times[bad.argmax()] if in_time else times[-1])
            found[int(row)] = min(first, found.get(int(row), first))
    return found


def _shaped(array: np.ndarray, layout: Layout, states: list[int] | None) -> np.ndarray:
    if states is not None:
        array = array[..., states]
    if layout.final:
        array = array[:, 0]
    return np.ascontiguousarray(array if layout.batched else array[0])


def _by_direction(
    array: np.ndarray, layout: Layout, shape: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """``(row, k, ...)`` to one answer, or to a leading axis of k where one was sent."""
    if not layout.leading:
        return shape(array[:, 0])
    return np.stack([shape(array[:, k]) for k in range(array.shape[1])])
