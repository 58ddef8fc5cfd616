"""A content of the store as an answer: all of it, or the range that is asked for.

Its first piece is there before the answer begins, so what is lost or damaged is refused
like anything else; of a damaged content of several pieces the last one never comes.
"""

import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from api.conditional import Span, is_known, not_modified, read_range
from api.workspace import Workspace
from services.blobs import Blobs, Lost

IMMUTABLE = "private, max-age=31536000, immutable"
"""What is asked for by name never changes."""


class Content(NamedTuple):
    """What is downloaded.

    Args:
        key: In the store.
        digest: SHA-256 of all of it, its ETag.
        size_bytes: Of all of it.
        filename: Under which it is saved.
        kind: Its media type.
    """

    key: str
    digest: str
    size_bytes: int
    filename: str
    kind: str


async def downloaded(
    request: Request,
    workspace: Workspace,
    blobs: Blobs,
    content: Content,
    record: Callable[[], Awaitable[Any]],
) -> Response:
    """Answer with a content.

    Args:
        request: What it answers.
        workspace: Of the caller.
        blobs: The store.
        content: What was asked for.
        record: Looks again for what refers to it; it may be deleted just now.

    Raises:
        Lost: The store has no such key, and what refers to it is there.
        Damaged: The content, of one piece, is not the one that its digest says.
        Unavailable: The store does not answer.
        HTTPException: 416: the range lies beyond the end.
    """
    etag = f'"{content.digest}"'
    if is_known(request, etag):
        return not_modified(etag)
    span = read_range(request, content.size_bytes, etag)
    headers = {
        "etag": etag,
        "accept-ranges": "bytes",
        "cache-control": IMMUTABLE,
        "content-disposition": f'attachment; filename="{content.filename}"',
    }
    if span is None:
        stream = blobs.stream(content.key)
        sent = Span(0, content.size_bytes)
    else:
        stream = blobs.stream(content.key, start=span.start, end=span.end)
        sent = span
        headers["content-range"] = (
            f"bytes {span.start}-{span.end - 1}/{content.size_bytes}"
        )
    headers["content-length"] = str(sent.end - sent.start)
    try:
        pieces = await workspace.in_store(_begun, stream)
    except Lost:
        await record()
        raise
    return StreamingResponse(pieces, 206 if span else 200, headers, content.kind)


def _begun(stream: Iterator[bytes]) -> Iterator[bytes]:
    """The same pieces, of which the first has come."""
    return itertools.chain([next(stream, b"")], stream)
