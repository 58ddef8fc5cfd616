"""From an executor's arrays to the answer of a request, as JSON or as npz.

Nothing that is not finite leaves in silence: a row that left the finite range fails the
request, or is null and described where the request says ``on_error: "mask"``.
"""

import functools
import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson

from services.errors import RolloutFailed
from services.rollouts.canonical import Layout, Work
from services.rollouts.request import DIFFERENTIABLE, Arrays, Request
from services.rollouts.served import Box, Served

# How many outliers one answer lists; the flags name every row.
_LISTED = 1000
Fields = dict[str, Any]


def answer(
    request: Request, served: Served, work: Work, layout: Layout, results: Arrays
) -> Fields:
    """Shape the answer; arrays stay numpy arrays.

    Raises:
        RolloutFailed: A row is not finite, and the request does not mask.
    """
    failed = _failed_rows(results, work.shared["times"])
    if failed and request.options.on_error == "raise":
        row, time = min(failed.items())
        raise RolloutFailed(row=row, time=time)
    fields: Fields = {
        "model": served.model,
        "version": served.version,
        "digest": served.digest,
        "times": work.shared["times"],
        "x": _shaped(results["x"], layout, layout.states),
    }
    if "z" in results:
        fields["z"] = _shaped(results["z"], layout, None)
    if "tangents" in results:
        fields["jvp"] = _by_direction(
            results["tangents"],
            layout,
            lambda each: _shaped(each, layout, layout.states),
        )
    gradients = (
        {name: results[f"gradients.{name}"] for name in layout.ranks}
        if (request.operation == "vjp")
        else {}
    )
    if gradients:
        fields["vjp"] = {
            name: _by_direction(
                gradient, layout, functools.partial(_unspread, name, layout)
            )
            for name, gradient in gradients.items()
        }
    _add_domain(fields, request, served, work, layout)
    if request.options.on_error == "mask":
        fields["rows"] = [
            {"row": row, "code": "rollout_failed", "time": time}
            for row, time in sorted(failed.items())
        ]
    return fields


def to_json(fields: Fields, *, batched: bool, many: bool = False) -> bytes:
    """Encode an answer as JSON; rows that are not finite are null."""
    if fields.get("rows"):
        fields = {
            name: _masked(value, batched, many and name in ("jvp", "vjp"))
            for name, value in fields.items()
        }
    return orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY)


def to_npz(fields: Fields) -> bytes:
    """Encode an answer as npz: numbers as arrays, text as text.

    ``warnings``, ``domain`` and ``rows`` are JSON; the gradient with respect to x0 is
    ``vjp.x0``, and so on.
    """
    members: Arrays = {}
    for name, value in fields.items():
        if isinstance(value, dict) and name == "vjp":
            members |= {f"vjp.{each}": array for each, array in value.items()}
        elif isinstance(value, (dict, list)):
            members[name] = np.array(json.dumps(value))
        else:
            members[name] = np.asarray(value)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in members.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return buffer.getvalue()


def _failed_rows(results: Arrays, times: np.ndarray) -> dict[int, float]:
    """Rows with a value that is not finite, and the first time of one in ``x``."""
    found: dict[int, float] = {}
    for name, array in results.items():
        finite = np.isfinite(array)
        if finite.all():
            continue
        in_time = name in ("x", "z", "tangents")
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


def _unspread(name: str, layout: Layout, gradient: np.ndarray) -> np.ndarray:
    """The gradient in the shape of its input: summed where all rows shared it."""
    rank = 2 if name == "controls" else 1
    if layout.ranks[name] > rank:
        return gradient
    return gradient.sum(axis=0)


def _masked(value: object, batched: bool, many: bool = False) -> object:
    if isinstance(value, dict):
        return {name: _masked(each, batched, many) for name, each in value.items()}
    if many and isinstance(value, np.ndarray):
        return [_masked(each, batched) for each in value]
    # orjson would write each NaN as null and leave the rest of its row standing.
    if not isinstance(value, np.ndarray) or np.isfinite(value).all():
        return value
    if not batched:
        return None
    return [row if np.isfinite(row).all() else None for row in value]


def _add_domain(
    fields: Fields, request: Request, served: Served, work: Work, layout: Layout
) -> None:
    inside = np.ones(work.count, bool)
    outliers: list[Fields] = []
    for name, values in _domain_values(served, work).items():
        box = served.boxes[name]
        outside = box.outside(values)
        if not outside.any():
            continue
        by_row: np.ndarray = np.any(
            outside.reshape(work.count, -1, len(box.names)), axis=1
        )
        inside &= ~np.any(by_row, axis=-1)
        outliers += _outliers(name, box, values, by_row)
    warnings = _warnings(inside, outliers)
    end = served.signature.domain.end
    last = float(layout.times[-1])
    if last > end * (1 + 1e-9):
        inside[:] = False
        warnings.append(
            f"times reach {last!r}, beyond {end!r}, where the training data ended"
        )
        outliers.append({"field": "times", "value": last, "lower": 0.0, "upper": end})
    fields["warnings"] = warnings
    fields["domain"] = {"inside": inside.tolist()}
    if request.options.outputs.domain:
        fields["domain"]["outside"] = outliers[:_LISTED]


def _domain_values(served: Served, work: Work) -> dict[str, np.ndarray]:
    values = {name: work.rows[name] for name in DIFFERENTIABLE if name in work.rows}
    if len(served.sums):
        values["sums"] = work.rows["x0"] @ served.sums.T
    return {name: value for name, value in values.items() if name in served.boxes}


def _outliers(
    name: str, box: Box, values: np.ndarray, outside: np.ndarray
) -> list[Fields]:
    """The first outliers among the rows, ``outside`` being ``(row, name)``."""
    found = []
    by_row = values.reshape(len(outside), -1, len(box.names))
    for row, column in np.argwhere(outside)[:_LISTED].tolist():
        beyond = by_row[row, :, column]
        low, high = float(box.lower[column]), float(box.upper[column])
        worst = beyond[np.argmax(np.maximum(low - beyond, beyond - high))]
        found.append(
            {
                "row": row,
                "field": name,
                "name": box.names[column],
                "value": float(worst),
                "lower": low,
                "upper": high,
            }
        )
    return found


def _warnings(inside: np.ndarray, outliers: list[Fields]) -> list[str]:
    count = int((~inside).sum())
    if not count:
        return []
    first = outliers[0]
    rows = f"{count} of {len(inside)} rows lie" if len(inside) > 1 else "the row lies"
    return [
        f"{rows} outside the training data, first {first['name']} = "
        f"{first['value']!r} in row {first['row']} of {first['field']}, trained on "
        f"{first['lower']!r} to {first['upper']!r}; see domain"
    ]
