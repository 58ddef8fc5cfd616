"""The page: files as they lie in ``web/``, which ask REST for all that they show.

They need no key, hold nothing secret, and may load nothing from elsewhere.
"""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send

_FOLDER = Path(__file__).with_name("web")
_HEADERS = {
    b"content-security-policy": (
        b"default-src 'none'; script-src 'self'; style-src 'self'; "
        # Pictures of a training are fetched with a key, and shown from memory.
        b"img-src 'self' blob:; "
        b"connect-src 'self'; form-action 'none'; base-uri 'none'; "
        b"frame-ancestors 'none'"
    ),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    # Asked for again each time, and answered with 304: a new version shows at once.
    b"cache-control": b"no-cache",
}


class _Files(StaticFiles):
    """Static files with the headers of the page."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await super().__call__(scope, receive, _with_headers(send))


class _Index:
    """The page itself."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        response = await _FILES.get_response("index.html", scope)
        await response(scope, receive, _with_headers(send))


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *_HEADERS.items()]
        await send(message)

    return sending


async def _reference(request: Request) -> Response:
    return RedirectResponse("/#/reference")


_FILES = _Files(directory=_FOLDER)
routes: list[BaseRoute] = [
    Route("/", _Index(), methods=["GET", "HEAD"], include_in_schema=False),
    Route("/docs", _reference, methods=["GET"], include_in_schema=False),
    Mount("/page", _FILES),
]
