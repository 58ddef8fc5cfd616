"""Where a request lies beside the training data: a flag a row, and words for it."""

from typing import Any

import numpy as np

from services.rollouts.request import DIFFERENTIABLE, Arrays
from services.rollouts.served import Box, Served

# How many outliers one answer lists; the flags name every row.
_LISTED = 1000
Fields = dict[str, Any]


def domain_fields(served: Served, rows: Arrays, last: float, *, listed: bool) -> Fields:
    """``warnings`` and ``domain`` of an answer.

    Args:
        served: The version, which knows its training domain.
        rows: The inputs of each row.
        last: The last output time.
        listed: Whether to list what lies outside.
    """
    count = len(rows["x0"])
    values = _domain_values(served, rows)
    beyond = {name: served.boxes[name].outside(each) for name, each in values.items()}
    beyond = {name: outside for name, outside in beyond.items() if outside.any()}
    end = served.signature.domain.end
    is_late = last > end * (1 + 1e-9)
    if not beyond and not is_late:
        found: Fields = {"inside": [True] * count}
        if listed:
            found["outside"] = []
        return {"warnings": [], "domain": found}
    inside = np.ones(count, bool)
    outliers: list[Fields] = []
    for name, outside in beyond.items():
        box = served.boxes[name]
        by_row: np.ndarray = np.any(outside.reshape(count, -1, len(box.names)), axis=1)
        inside &= ~np.any(by_row, axis=-1)
        outliers += _outliers(name, box, values[name], by_row)
    warnings = _warnings(inside, outliers) if outliers else []
    if is_late:
        inside[:] = False
        warnings.append(
            f"times reach {last!r}, beyond {end!r}, where the training data ended"
        )
        outliers.append({"field": "times", "value": last, "lower": 0.0, "upper": end})
    domain: Fields = {"inside": inside.tolist()}
    if listed:
        domain["outside"] = outliers[:_LISTED]
    return {"warnings": warnings, "domain": domain}


def _domain_values(served: Served, rows: Arrays) -> dict[str, np.ndarray]:
    values = {name: rows[name] for name in DIFFERENTIABLE if name in rows}
    if len(served.sums):
        values["sums"] = rows["x0"] @ served.sums.T
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
    first = outliers[0]
    rows = f"{count} of {len(inside)} rows lie" if len(inside) > 1 else "the row lies"
    return [
        f"{rows} outside the training data, first {first['name']} = "
        f"{first['value']!r} in row {first['row']} of {first['field']}, trained on "
        f"{first['lower']!r} to {first['upper']!r}; see domain"
    ]
