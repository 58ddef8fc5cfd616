"""Conditional and partial answers: ETag, If-None-Match, Range."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

_RANGE = re.compile(r"^bytes=(\d{0,18})-(\d{0,18})$")


def etag_of(parts: Iterable[object]) -> str:
    """A strong etag of some values that print what they are."""
    text = "\0".join(map(repr, parts))
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def is_known(request: Request, etag: str) -> bool:
    """Whether ``If-None-Match`` names this etag."""
    given = request.headers.get("if-none-match", "")
    known = {each.strip().removeprefix("W/") for each in given.split(",")}
    return etag in known or "*" in known


def not_modified(etag: str) -> Response:
    """The answer to a caller that has it already."""
    return Response(status_code=304, headers={"etag": etag})


@dataclass(frozen=True)
class Span:
    """Bytes from ``start`` up to, not including, ``end``."""

    start: int
    end: int


def read_range(request: Request, size: int, etag: str) -> Span | None:
    """The one range that a caller asks for, or None for all of it.

    Several ranges, other units and an ``If-Range`` that has changed mean all of it.

    Raises:
        HTTPException: 416: the range lies beyond the end.
    """
    found = _RANGE.match(request.headers.get("range", ""))
    if found is None or request.headers.get("if-range", etag) != etag:
        return None
    first, last = found.groups()
    if not first and not last:
        return None
    if not first:
        span = Span(max(0, size - int(last)), size)
    else:
        span = Span(int(first), min(size, int(last) + 1) if last else size)
    if span.start >= span.end or span.start >= size:
        raise HTTPException(
            416,
            f"found Range {found.group()!r}; expected one within {size} bytes",
            headers={"content-range": f"bytes */{size}"},
        )
    return span
