"""The bodies of UM-Bridge's calls: JSON, though their clients send no content type."""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from spnode_core.errors import InvalidInput

_NUMBERS = {int, float}
_ECHO = 80


@dataclass(frozen=True)
class Call:
    """A call whose model and config are known, and whose other fields are not yet read.

    Args:
        name: Of the model.
        config: What was sent as ``config``.
        fields: All that was sent.
    """

    name: str
    config: dict[str, Any]
    fields: Mapping[str, Any]

    def vectors(self, sizes: list[int]) -> list[np.ndarray]:
        """``input``: vectors of these sizes.

        Raises:
            InvalidInput: It is something else.
        """
        given = self._list("input", "vectors")
        if len(given) != len(sizes):
            raise InvalidInput(
                "input", found=f"{len(given)} vectors", expected=str(len(sizes))
            )
        pairs = enumerate(zip(given, sizes, strict=True))
        return [_vector(f"input[{i}]", value, size) for i, (value, size) in pairs]

    def vector(self, field: str, size: int) -> np.ndarray:
        """``sens`` or ``vec``, of this size.

        Raises:
            InvalidInput: It is something else.
        """
        return _vector(field, self._list(field, "numbers"), size)

    def index(self, field: str, count: int) -> int:
        """Which of so many vectors a field means.

        Raises:
            InvalidInput: None of them.
        """
        value = self.fields.get(field)
        if type(value) is not int or not 0 <= value < count:
            raise InvalidInput(
                field,
                found=_echo(self.fields, field),
                expected=f"an integer from 0 to {count - 1}",
            )
        return value

    def _list(self, field: str, noun: str) -> list[Any]:
        value = self.fields.get(field)
        if not isinstance(value, list):
            found = _echo(self.fields, field)
            raise InvalidInput(field, found=found, expected=f"a list of {noun}")
        return value


def read_call(body: bytes) -> Call:
    """Read the fields that every call has.

    Raises:
        InvalidInput: The body is no JSON object, or has no name of a model.
    """
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        found = f"no JSON ({error})" if body else "nothing"
        raise InvalidInput("the body", found=found, expected="a JSON object") from error
    if not isinstance(fields, dict):
        raise InvalidInput("the body", found=shown(fields), expected="a JSON object")
    name, config = fields.get("name"), fields.get("config")
    if not isinstance(name, str):
        found = _echo(fields, "name")
        raise InvalidInput("name", found=found, expected="the name of a model")
    if not isinstance(config, dict | None):
        found = _echo(fields, "config")
        raise InvalidInput("config", found=found, expected="an object")
    return Call(name, config or {}, fields)


def _vector(field: str, value: object, size: int) -> np.ndarray:
    if not isinstance(value, list):
        found = shown(value)
        raise InvalidInput(field, found=found, expected="a list of numbers")
    if len(value) != size:
        raise InvalidInput(field, found=f"{len(value)} numbers", expected=str(size))
    if not set(map(type, value)) <= _NUMBERS:
        place = next(i for i, each in enumerate(value) if type(each) not in _NUMBERS)
        raise InvalidInput(
            f"{field}[{place}]",
            found=shown(value[place]),
            expected="a number",
        )
    return np.array(value, np.float64)


def shown(value: object) -> str:
    """A value as an error tells it, however deep or long it is."""
    return reprlib.repr(value)[:_ECHO]


def _echo(fields: Mapping[str, Any], field: str) -> str:
    return shown(fields[field]) if field in fields else "nothing"
