"""JSON requests whose arrays come as npz: the file is streamed, the rest is JSON.

The member ``request`` of the file holds the JSON body; everything else in it are
arrays. The endpoint sees the JSON body, and the file in ``request.state.sent``.
"""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from starlette.types import Message

from api.bodies import JsonRoute
from api.content_types import is_json, media_type, refuse_type
from api.middleware import (
    MAX_DOCUMENT_BYTES,
    NPZ,
    BodyTooLarge,
)
from api.uploads import received
from services.rollouts.rows import TEXT, sent_members
from spnode_core.errors import InvalidInput

NPZ_BODY = {
    NPZ: {
        "schema": {"type": "string", "format": "binary"},
        "description": "Arrays under the names of the JSON fields, and the text "
        "`request`: a JSON object with all other fields.",
    }
}


class ArraysRoute(JsonRoute):
    """A route that takes JSON, or npz with a member that is JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The usual handler, called with the JSON of either form."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            kind = media_type(request.headers)
            if kind != NPZ:
                if kind and not is_json(kind):
                    refuse_type(kind, f"application/json or {NPZ}")
                return await handler(request)
            gateway = request.app.state.gateway
            settings = gateway.settings
            async with received(request, settings, gateway.upload_room) as path:
                limit = settings.max_upload_bytes
                text = await asyncio.to_thread(_text, path, limit)
                return await handler(_as_json(request, path, text))

        return handle


def _text(path: Path, limit_bytes: int) -> bytes:
    """The JSON in a sent file."""
    with sent_members(path, limit_bytes) as members:
        member = members.get(TEXT)
        if member is None or member.shape != () or member.dtype.kind not in "US":
            raise InvalidInput(
                TEXT,
                found="nothing" if member is None else f"dtype {member.dtype}",
                expected="JSON as text: numpy.savez(..., request='{…}')",
            )
        # Four bytes a character, where it is not kept as bytes.
        size = member.dtype.itemsize // (4 if member.dtype.kind == "U" else 1)
        if size > MAX_DOCUMENT_BYTES:
            raise BodyTooLarge(MAX_DOCUMENT_BYTES)
        value = member.whole().item()
    return value if isinstance(value, bytes) else value.encode(errors="replace")


def _as_json(request: Request, path: Path, text: bytes) -> Request:
    headers = [
        (name, b"application/json" if name == b"content-type" else value)
        for name, value in request.scope["headers"]
    ]
    state = {**request.scope.get("state", {}), "sent": path}

    async def receive() -> Message:
        return {"type": "http.request", "body": text, "more_body": False}

    return Request({**request.scope, "headers": headers, "state": state}, receive)
