"""JSON bodies: parsed strictly, off the event loop where they are large.

``json.loads`` takes halves of surrogate pairs, which no answer could ever show again.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.exceptions import HTTPException

from services.texts import check_storable

# Bodies above this many bytes are parsed in a thread.
_LARGE_BYTES = 64_000


class MalformedBody(HTTPException):
    """A body that is no JSON.

    An ``HTTPException``, since FastAPI turns every other exception of a body into a
    400 without its reason.
    """

    code = "malformed_json"

    def __init__(self, reason: str) -> None:
        super().__init__(400, f"the body is no JSON: {reason}")


def parse_json(body: bytes) -> Any:
    """Parse a body.

    Raises:
        MalformedBody: It is no JSON, not UTF-8, or nested too deep to be read.
        Invalid: It holds a text that no store can keep.
    """
    try:
        value = from_json(body)
    except ValueError as error:
        raise MalformedBody(str(error)) from error
    check_storable(value)
    return value


class JsonRequest(Request):
    """A request whose body is parsed by ``parse_json``."""

    async def json(self) -> Any:
        """The parsed body."""
        body = await self.body()
        if len(body) > _LARGE_BYTES:
            return await asyncio.to_thread(parse_json, body)
        return parse_json(body)


class JsonRoute(APIRoute):
    """A route whose endpoint gets a ``JsonRequest``."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, called with a ``JsonRequest``."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(JsonRequest(request.scope, request.receive))

        return handle
