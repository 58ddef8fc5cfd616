"""What a body says that it is, and the refusal of one that is not taken."""

from collections.abc import Mapping
from typing import NoReturn

from starlette.exceptions import HTTPException


def media_type(headers: Mapping[str, str]) -> str:
    """The type of a body, without its parameters; empty where none is given."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def is_json(content_type: str) -> bool:
    """Whether a content type is JSON's."""
    return content_type == "application/json" or (
        content_type.startswith("application/") and content_type.endswith("+json")
    )


def refuse_type(given: str, expected: str) -> NoReturn:
    """Refuse a content type.

    Raises:
        HTTPException: 415, with what was found and expected.
    """
    raise HTTPException(
        415, f"found a body of type {given!r}; expected {expected} in Content-Type"
    )
