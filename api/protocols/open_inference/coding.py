"""Compressed bodies, gzip and deflate, both ways.

A body may unpack to as many bytes as an uncompressed one may have, and no further: what
would be more is refused while it is unpacked.
"""

import zlib
from collections.abc import Mapping

from starlette.exceptions import HTTPException

from api.middleware import BodyTooLarge
from services.errors import Invalid

# What zlib is told: a gzip container, or zlib's own, which HTTP calls deflate.
_WINDOW = {"gzip": 31, "deflate": 15}
# Shorter answers gain nothing.
_LEAST_BYTES = 1000
# Digits of floating point hardly shrink further, however long one tries.
_LEVEL = 1


def content_coding(headers: Mapping[str, str]) -> str | None:
    """How a body is compressed; None where it is not.

    Raises:
        HTTPException: 415, since it is of a kind that is not known here.
    """
    given = headers.get("content-encoding", "").strip().lower()
    if given in ("", "identity"):
        return None
    if given not in _WINDOW:
        raise HTTPException(
            415, f"found Content-Encoding {given[:80]!r}; expected gzip or deflate"
        )
    return given


def unpacked(body: bytes, coding: str, limit_bytes: int) -> bytes:
    """A body as it was before it was compressed.

    Raises:
        BodyTooLarge: It unpacks to more than ``limit_bytes``.
        Invalid: It is damaged, or goes on after its end.
    """
    stream = zlib.decompressobj(_WINDOW[coding])
    try:
        found = stream.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise _damaged(coding, str(error)) from error
    if len(found) > limit_bytes:
        raise BodyTooLarge(limit_bytes)
    if not stream.eof:
        raise _damaged(coding, "it ends too early")
    if stream.unused_data:
        raise _damaged(coding, f"{len(stream.unused_data)} bytes after its end")
    return found


def accepted_coding(headers: Mapping[str, str], size_bytes: int) -> str | None:
    """How an answer of a size may be compressed; None where it should not be."""
    if size_bytes < _LEAST_BYTES:
        return None
    accepted = set()
    for item in headers.get("accept-encoding", "").lower().split(","):
        name, _, weight = item.partition(";")
        if weight.replace(" ", "").rstrip("0.") != "q=":
            accepted.add(name.strip())
    return next((coding for coding in _WINDOW if coding in accepted), None)


def packed(content: bytes, coding: str) -> bytes:
    """An answer, compressed."""
    stream = zlib.compressobj(_LEVEL, wbits=_WINDOW[coding])
    return stream.compress(content) + stream.flush()


def _damaged(coding: str, reason: str) -> Invalid:
    return Invalid("body", found=f"no {coding}: {reason}", expected=f"{coding}")
