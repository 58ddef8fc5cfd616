"""What a field expects, in words, where pydantic speaks of its own types."""

import re
from collections.abc import Mapping
from typing import Any

from services.datasets import DATASET_PATTERN
from services.projects import PROJECT_PATTERN
from services.versions import NAME_PATTERN

_NUMBERS = "a list of numbers in the order of names"
_BY_NAME = ("x0", "parameters")
_NAME = "lower case letters, digits, - and _, 64 at most, the first a letter or a digit"
_PATTERNS = {
    NAME_PATTERN: _NAME,
    PROJECT_PATTERN: _NAME.replace("- and _", "., - and _"),
    DATASET_PATTERN: "the id of a dataset: ds_, then 26 letters and digits",
}
_ITEMS = {"models": "versions"}
_LENGTH = re.compile(r"\w+ should have (at (?:least|most) \d+) (\w+)")


def expected(error: Mapping[str, Any], field: object) -> str:
    """What should have been there.

    Args:
        error: One of pydantic's errors.
        field: The last part of its place.
    """
    said = str(error["msg"]).removeprefix("Input should be ")
    if error["type"] == "list_type":
        if field not in _BY_NAME:
            return "a list"
        # Unions of lists and rows of lists put a tag behind the field.
        has_rows = error["loc"][-1] != field
        return f"{_NUMBERS}, or rows of them" if has_rows else _NUMBERS
    if error["type"] == "string_pattern_mismatch":
        pattern = error["ctx"]["pattern"]
        return _PATTERNS.get(pattern, f"text that matches {pattern}")
    if length := _LENGTH.match(said):
        return f"{length[1]} {_ITEMS.get(str(field), length[2])}"
    return said[:1].lower() + said[1:]
