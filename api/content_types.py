"""What a body says that it is, and the refusal of what is not taken."""

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


def check_uncompressed(headers: Mapping[str, str]) -> None:
    """Refuse a body that says it is compressed, where nothing unpacks it.

    Raises:
        HTTPException: 415, with what was found and expected.
    """
    given = headers.get("content-encoding")
    if given is None or given.strip().lower() in ("", "identity"):
        return
    raise HTTPException(
        415,
        f"found Content-Encoding {given[:80]!r}; expected none: only /v2 takes "
        "compressed bodies, of infer",
        headers={"accept-encoding": "identity"},
    )


def refuse_type(given: str, expected: str) -> NoReturn:
    """Refuse a content type.

    Raises:
        HTTPException: 415, with what was found and expected.
    """
    raise HTTPException(
        415, f"found a body of type {given!r}; expected {expected} in Content-Type"
    )
