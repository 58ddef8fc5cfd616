"""Answers as JSON or as npz."""

import json
from typing import Any

import numpy as np
import orjson

from services.rollouts.archive import write_archive

Fields = dict[str, Any]
# Fields that hold an array for each input.
_BY_INPUT = ("vjp", "hvp", "jacobian", "gradient")


def to_json(fields: Fields, *, batched: bool, many: str | None = None) -> bytes:
    """Encode an answer as JSON; rows that are not finite are null.

    Args:
        fields: The answer.
        batched: Whether its arrays have an axis of rows.
        many: The field whose arrays have a leading axis of directions, None without.
    """
    if fields.get("rows"):
        fields = {
            name: _masked(value, batched, name == many)
            for name, value in fields.items()
        }
    return orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY)


def to_npz(fields: Fields) -> bytes:
    """Encode an answer as npz: numbers as arrays, text as text.

    ``warnings``, ``domain``, ``rows`` and ``sweep`` are JSON; the gradient with respect
    to x0 is ``vjp.x0``, and so on.
    """
    members: dict[str, np.ndarray | str | int] = {}
    for name, value in fields.items():
        if name in _BY_INPUT:
            members |= {f"{name}.{each}": array for each, array in value.items()}
        elif isinstance(value, (dict, list)):
            members[name] = json.dumps(value)
        elif isinstance(value, (str, int)):
            members[name] = value
        else:
            members[name] = np.asarray(value)
    return write_archive(members)


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
