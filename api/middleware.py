"""What surrounds every request: its id, the limit of its body, the problem it may be.

Pure ASGI throughout: one BaseHTTPMiddleware would cost more than all the rest.
"""

import re
from typing import NoReturn

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import problem_of
from services.identity import new_id

_REQUEST_ID = re.compile(r"^[\w.:-]{1,128}$")
# Paths whose bodies are not JSON, or are JSON and npz.
_ANY_TYPE = re.compile(
    r"^(/v1)?/rollout(/|$)|^/v1/objective$|^(/v1)?/jobs$|^/v1/datasets$|"
    r"^/v1/models/[^/]+/versions$"
)
_ROLLOUTS = re.compile(r"^(/v1)?/rollout(/|$)|^/v1/objective$")
# Bodies that hold no arrays. A field that is wrong costs about 1.5 kB to describe, and
# two bytes are enough for one.
_MAX_DOCUMENT_BYTES = 2**21
_UPLOADS = re.compile(r"^(/v1)?/jobs$|^/v1/datasets$|^/v1/models/[^/]+/versions$")


class BodyTooLarge(HTTPException):
    """The body is larger than this deployment takes.

    An ``HTTPException``, since FastAPI turns every other exception of ``receive`` into
    a 400.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(413, f"the body is larger than {limit} bytes; see /v1/limits")


class ContextMiddleware:
    """Gives each request an id and makes every exception a problem."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and answer what comes back as an exception."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.match(given) else new_id("req")
        trace = headers.get("traceparent")
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                answer = MutableHeaders(raw=message.setdefault("headers", []))
                answer["x-request-id"] = request_id
                if trace is not None:
                    answer["traceparent"] = trace
            await send(message)

        try:
            _check_address(scope)
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            return
        except Exception as error:  # the HTTP boundary
            problem = problem_of(error, scope)
            if not started:
                await problem.response(scope)(scope, receive, send_with_id)


class BodyMiddleware:
    """Refuses bodies of a wrong type, and those above the limit, counted or claimed.

    Args:
        app: What is inside.
        max_body_bytes: Limit of ordinary bodies.
        max_upload_bytes: Limit of uploaded datasets and artifacts.
    """

    def __init__(
        self, app: ASGIApp, *, max_body_bytes: int, max_upload_bytes: int
    ) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.max_upload_bytes = max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is within the limits."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        _check_type(scope["path"], headers)
        limit = self._limit(scope["path"], headers)
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > limit:
            raise BodyTooLarge(limit)
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise BodyTooLarge(limit)
            return message

        await self.app(scope, counted, send)

    def _limit(self, path: str, headers: Headers) -> int:
        if _UPLOADS.match(path) and not is_json(_type_of(headers)):
            return self.max_upload_bytes
        if _ROLLOUTS.match(path):
            return self.max_body_bytes
        return min(self.max_body_bytes, _MAX_DOCUMENT_BYTES)


def _check_address(scope: Scope) -> None:
    """Refuse NUL, which PostgreSQL does not take in a text.

    Raises:
        HTTPException: 400.
    """
    if "\0" in scope["path"] or b"%00" in scope["query_string"]:
        raise HTTPException(
            400, "found a NUL character (%00) in the path or the query; expected none"
        )


def _check_type(path: str, headers: Headers) -> None:
    given = _type_of(headers)
    if not given or _ANY_TYPE.match(path) or is_json(given):
        return
    if headers.get("content-length", "") == "0":
        return
    refuse_type(given, "application/json")


def _type_of(headers: Headers) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def refuse_type(given: str, expected: str) -> NoReturn:
    """Refuse a content type.

    Raises:
        HTTPException: 415, with what was found and expected.
    """
    raise HTTPException(
        415, f"found a body of type {given!r}; expected {expected} in Content-Type"
    )


def is_json(content_type: str) -> bool:
    """Whether a content type is JSON's."""
    return content_type == "application/json" or (
        content_type.startswith("application/") and content_type.endswith("+json")
    )
