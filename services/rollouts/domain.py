"""Where a request lies beside the training data: a flag a row, and words for it."""

from typing import Any

import numpy as np

from services.rollouts.request import DIFFERENTIABLE, Arrays
from services.rollouts.served import Box, Served, are_all

# How many outliers one answer lists; the flags name every row.
_LISTED = 1000
Fields = dict[str, Any]


def all_inside(served: Served, rows: Arrays, distance: np.ndarray | None) -> bool:
    """Whether every row lies inside the training data, as far as inputs tell."""
    if distance is not None and not are_all(distance <= 1):
        return False
    values = _domain_values(served, rows)
    return all(served.boxes[name].holds(each) for name, each in values.items())


def domain_fields(
    served: Served,
    rows: Arrays,
    last: float,
    *,
    distance: np.ndarray | None = None,
    listed: bool,
    is_known: bool = False,
) -> Fields:
    """``warnings`` and ``domain`` of an answer.

    Args:
        served: The version, which knows its training domain.
        rows: The inputs of each row.
        last: The last output time.
        distance: Of each row from the training samples, where 1 is the most that is
            usual; None where the version keeps none.
        listed: Whether to list what lies outside.
        is_known: Whether ``all_inside`` has said so of these rows.
    """
    count = len(rows["x0"])
    end = served.signature.domain.end
    is_late = last > end * (1 + 1e-9)
    if not is_late and (is_known or all_inside(served, rows, distance)):
        found: Fields = {"inside": [True] * count}
        if listed:
            found |= {"outside": [], **_distances(distance)}
        return {"warnings": [], "domain": found}
    values = _domain_values(served, rows)
    beyond = {name: served.boxes[name].outside(each) for name, each in values.items()}
    beyond = {name: outside for name, outside in beyond.items() if outside.any()}
    far = np.zeros(count, bool) if distance is None else distance > 1
    inside = np.ones(count, bool)
    outliers: list[Fields] = []
    for name, outside in beyond.items():
        box = served.boxes[name]
        by_row: np.ndarray = np.any(outside.reshape(count, -1, len(box.names)), axis=1)
        inside &= ~np.any(by_row, axis=-1)
        outliers += _outliers(name, box, values[name], by_row)
    warnings = _warnings(inside, outliers) if outliers else []
    if distance is not None and far.any():
        inside &= ~far
        warnings.append(_far(distance))
        outliers += [
            {"row": row, "field": "latent", "name": "distance", "value": value}
            | {"lower": 0.0, "upper": 1.0}
            for row, value in enumerate(distance.tolist())
            if value > 1
        ][:_LISTED]
    if is_late:
        inside[:] = False
        warnings.append(
            f"times reach {last!r}, beyond {end!r}, where the training data ended"
        )
        outliers.append({"field": "times", "value": last, "lower": 0.0, "upper": end})
    domain: Fields = {"inside": inside.tolist()}
    if listed:
        domain |= {"outside": outliers[:_LISTED], **_distances(distance)}
    return {"warnings": warnings, "domain": domain}


def _domain_values(served: Served, rows: Arrays) -> dict[str, np.ndarray]:
    values = {name: rows[name] for name in DIFFERENTIABLE if name in rows}
    if served.sums.size:
        values["sums"] = rows["x0"].dot(served.sums)
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


def _distances(distance: np.ndarray | None) -> Fields:
    return {} if distance is None else {"distance": distance.tolist()}


def _far(distance: np.ndarray) -> str:
    """Words for rows in the box, or not, that no training sample is near to."""
    count, first = int((distance > 1).sum()), int(np.argmax(distance > 1))
    rows = f"{count} of {len(distance)} rows lie" if len(distance) > 1 else "it lies"
    return (
        f"{rows} far from every training sample in latent space, first row {first}, at "
        f"{distance[first]:.3g} times the distance that is usual at most; see domain"
    )


def _warnings(inside: np.ndarray, outliers: list[Fields]) -> list[str]:
    count = int((~inside).sum())
    first = outliers[0]
    rows = f"{count} of {len(inside)} rows lie" if len(inside) > 1 else "the row lies"
    return [
        f"{rows} outside the training data, first {first['name']} = "
        f"{first['value']!r} in row {first['row']} of {first['field']}, trained on "
        f"{first['lower']!r} to {first['upper']!r}; see domain"
    ]
