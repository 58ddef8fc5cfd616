"""What surrounds every request: its id, the limit of its body, how it is refused.

Pure ASGI throughout: one BaseHTTPMiddleware would cost more than all the rest.
"""

import functools
import logging
import random
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth import OPEN, READS, admitted, check_scope, needed_scope
from api.content_types import (
    check_uncompressed,
    is_json,
    media_type,
    refuse_type,
)
from api.dependencies import Gateway
from api.heads import BODY_IS_HERE
from api.held_bodies import HeldBodies, holder
from api.protocols.shapes import refusal
from api.slow_bodies import LEAST_RATE, BodyTooSlow, SlowBodies
from services.identity import new_id
from services.logs import of_request
from services.metrics import REQUESTS

log = logging.getLogger("spnode.api")

_REQUEST_ID = re.compile(r"^[\w.:-]{1,128}$", re.ASCII)
# As W3C has it: ids of zeros alone, and the version ff, are none.
_TRACEPARENT = re.compile(
    r"^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$"
)
# Paths whose bodies are not JSON, or are JSON and npz.
_ANY_TYPE = re.compile(
    r"^(/v1)?/rollout(/|$)|^/v1/objective$|^(/v1)?/jobs$|^/v1/datasets$|"
    r"^/v1/models/[^/]+/versions$|^/(umbridge|v2|tesseract)(/|$)"
)
_ROLLOUTS = re.compile(
    r"^(/v1)?/rollout(/|$)|^/v1/objective$|^/(umbridge|tesseract|v2/models)(/|$)"
)
# Of what holds no arrays: two bytes may be a wrong field, and cost 1.5 kB to describe.
MAX_DOCUMENT_BYTES = 2**21
NPZ = "application/x-npz"
GONE = 499
"""As what a request counts whose caller went away before an answer; nobody gets it."""
TENSORS = "inference-header-content-length"
"""Where JSON ends and tensors begin, in a body of the Open Inference Protocol."""
# What is sent at a time; larger parts of answers count as held until they have gone.
_PIECE_BYTES = 256 * 1024
_UPLOADS = re.compile(r"^/v1/datasets$|^/v1/models/[^/]+/versions$")
# Here a body without a type is JSON.
_SENT_ARRAYS = re.compile(r"^(/v1)?/jobs$")


_METHODS = READS | {"POST", "PUT", "PATCH", "DELETE"}
# The system gives random bits too, but lets go of the interpreter within a request.
_random = random.Random(secrets.randbits(128))


def _request_id() -> str:
    return new_id("req", random_bits=_random.getrandbits)


class BodyTooLarge(HTTPException):
    """The body is larger than this deployment takes.

    An ``HTTPException``, since FastAPI turns every other exception of ``receive`` into
    a 400.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(413, f"the body is larger than {limit} bytes; see /v1/limits")


class Entrance:
    """What every HTTP request passes first: its id, its key, the limits of its body.

    Every exception from inside becomes a refusal. One layer and one reading of the
    headers, since each layer more costs a rollout some ten microseconds.

    Args:
        app: What is inside.
        max_body_bytes: Limit of ordinary bodies.
        max_json_bytes: Limit of those that are JSON.
        max_upload_bytes: Limit of uploaded datasets and artifacts.
        body_seconds: How long a body may take, and a second more for each 16 KiB.
        held: What the bodies of all requests take in memory.
        route: Under which name requests are counted; by default the router's.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body_bytes: int,
        max_json_bytes: int,
        max_upload_bytes: int,
        body_seconds: float,
        held: HeldBodies,
        route: str | None = None,
    ) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.max_json_bytes = max_json_bytes
        self.max_upload_bytes = max_upload_bytes
        self.body_seconds = body_seconds
        self.held = held
        self.route = route
        self._slow = SlowBodies()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is allowed, and answer what comes back as an exception."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = first_headers(scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.match(given) else _request_id()
        added = [(b"x-request-id", request_id.encode())]
        parent = headers.get("traceparent")
        if parent is not None and _TRACEPARENT.match(parent):
            added.append((b"traceparent", parent.encode()))
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        of_request(request_id)
        state["headers"] = headers
        state["held_bytes"] = 0
        started = False
        rule = rule_of(scope["method"], scope["path"])
        began = time.monotonic()

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if len(message.get("body", b"")) > _PIECE_BYTES:
                # Whoever does not read it keeps it in memory.
                caller, size = holder(state), len(message["body"])
                self.held.keep(caller, size)
                try:
                    await _in_pieces(message, send)
                finally:
                    self.held.release(caller, size)
                return
            if message["type"] == "http.response.start":
                started = True
                self._count(scope, message["status"], time.monotonic() - began)
                if rule.is_noted:
                    await _note(scope, message)
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        try:
            _check_address(scope)
            if rule.scope is not None:
                gateway: Gateway = scope["app"].state.gateway
                state["gateway"] = gateway
                caller = await admitted(gateway, scope, headers)
                if gateway.rates is not None:
                    allowance = await gateway.rates.spend(caller.id)
                    added += allowance.headers()
                    allowance.check()
                check_scope(caller, rule.scope)
            if rule.has_body:
                if rule.rollouts:
                    state["gateway"].batcher.check_open()
                    self.held.check(holder(state))
                receive = self._limited(rule, headers, receive, scope)
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            if not started:
                self._count(scope, GONE, time.monotonic() - began)
        except Exception as error:  # the HTTP boundary
            response = refusal(error, scope)
            if not started:
                await response(scope, receive, send_with_id)
        finally:
            if state["held_bytes"]:
                self.held.release(holder(state), state["held_bytes"])

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        """Count an answer by its route: what stood in the path is no label."""
        route = scope["state"]["route"] = self.route or route_of(scope)
        scope["state"]["status"] = status
        method = scope["method"] if scope["method"] in _METHODS else "other"
        _histogram(method, route, status).observe(seconds)

    def _limited(
        self,
        rule: "Rule",
        headers: Mapping[str, str],
        receive: Receive,
        scope: Scope,
    ) -> Receive:
        """Refuse bodies of a wrong type or coding, too large (as said or come) or slow.

        Raises:
            BodyTooLarge: By its Content-Length.
            HTTPException: 415.
        """
        length = headers.get("content-length", "0")
        if rule.binary != TENSORS:
            check_uncompressed(headers)
        given = media_type(headers)
        if given and not rule.any_type and length != "0" and not is_json(given):
            refuse_type(given, "application/json")
        limit, in_memory, is_text = self.max_body_bytes, True, _is_text(rule, headers)
        if rule.is_upload(given):
            limit, in_memory = self.max_upload_bytes, False
        elif not rule.rollouts:
            limit = min(limit, MAX_DOCUMENT_BYTES)
        elif is_text:
            limit = min(limit, self.max_json_bytes)
        if length.isdecimal() and int(length) > limit:
            raise BodyTooLarge(limit)
        received, waited, is_whole = 0, 0.0, False
        state = scope["state"]
        caller = holder(state)

        async def counted() -> Message:
            nonlocal received, waited, is_whole
            if is_whole:
                return await receive()
            # However much came fast, who stops sending keeps the memory it has.
            patience = self.body_seconds + min(received / LEAST_RATE, waited)
            began = time.monotonic()
            try:
                if scope.get(BODY_IS_HERE):
                    message = await receive()
                else:
                    message = await self._slow.wait(receive, patience - waited)
            except TimeoutError:
                raise BodyTooSlow(received, patience) from None
            # What this process does with a part is not the caller's slowness.
            waited += time.monotonic() - began
            part = len(message.get("body", b""))
            received += part
            is_whole = not message.get("more_body", False)
            if received > limit:
                raise BodyTooLarge(limit)
            if in_memory:
                held = self.held.hold(caller, part, received, is_json=is_text)
                state["held_bytes"] += held
            return message

        return counted


@dataclass(frozen=True)
class Rule:
    """What holds for a method and a path.

    Args:
        scope: The scope that a caller needs; None where no key is needed.
        has_body: Whether there may be a body.
        any_type: Whether that may be something else than JSON.
        uploads: Whether it may be a dataset or an artifact.
        sends_arrays: Whether it may be npz of any size, which is streamed to a file.
        rollouts: Whether it may hold as much JSON as one has arrays.
        binary: What else than JSON is read there: npz, tensors behind JSON, or nothing.
        is_noted: Whether the audit log tells of it: it may change something.
    """

    scope: str | None
    has_body: bool
    any_type: bool
    uploads: bool
    sends_arrays: bool
    rollouts: bool
    binary: str
    is_noted: bool

    def is_upload(self, given: str) -> bool:
        """Whether a body of this type is streamed to a file; all others are read."""
        if self.sends_arrays:
            return given == NPZ
        return self.uploads and not is_json(given)


@functools.lru_cache(maxsize=4096)
def rule_of(method: str, path: str) -> Rule:
    """What holds for a method and a path; most callers ask for the same ones again."""
    is_open = OPEN.match(path) is not None
    rollouts = _ROLLOUTS.match(path) is not None
    wanted = None if is_open else needed_scope(method, path)
    return Rule(
        scope=wanted,
        has_body=method not in ("GET", "HEAD"),
        any_type=_ANY_TYPE.match(path) is not None,
        uploads=_UPLOADS.match(path) is not None,
        sends_arrays=_SENT_ARRAYS.match(path) is not None,
        rollouts=rollouts,
        binary=_binary(path),
        is_noted=method not in READS and wanted not in (None, "rollout", "read"),
    )


def _binary(path: str) -> str:
    if path.startswith("/v2/"):
        return TENSORS if path.endswith("/infer") else ""
    return "" if path.startswith(("/umbridge", "/tesseract")) else NPZ


def route_of(scope: Scope) -> str:
    """The path of the route that took a request, with its parameters' names."""
    path = getattr(scope.get("route"), "path", None)
    if path is None and "endpoint" in scope:
        # The routes of the doors are Starlette's own, which do not say which they are.
        doors: Mapping[Any, str] = scope["app"].state.doors
        path = doors.get(scope["endpoint"])
    return path or "other"


@functools.cache
def _histogram(method: str, route: str, status: int) -> Any:
    return REQUESTS.labels(method, route, str(status))


async def _in_pieces(message: Message, send: Send) -> None:
    """Send a large part of an answer so that each piece waits for those before."""
    body = memoryview(message["body"])
    for start in range(0, len(body), _PIECE_BYTES):
        stop = start + _PIECE_BYTES
        more = message.get("more_body", False) or stop < len(body)
        piece = bytes(body[start:stop])
        await send({**message, "body": piece, "more_body": more})


async def _note(scope: Scope, answer: Message) -> None:
    """Tell the audit log of an answer, before the caller has it.

    What a caller without a key tries is not noted, nor what a key's rate refuses:
    anybody could fill the log.
    """
    state = scope["state"]
    if "caller" not in state or answer["status"] == HTTPStatus.TOO_MANY_REQUESTS:
        return
    act = (state["caller"].id, scope["method"], scope["path"], answer["status"])
    headers = dict(answer.get("headers", ()))
    # A redirection names another place, a repetition what was made before.
    is_new = answer["status"] < 300 and b"idempotency-replayed" not in headers
    made = (headers.get(b"location", b"").decode() or None) if is_new else None
    gateway: Gateway = state["gateway"]
    try:
        await gateway.sql(gateway.audit.note, *act, state["request_id"], made)
    except Exception as error:  # the boundary of what is beside the request
        # What was done is done: the answer goes out, and the log of the process has it.
        log.warning("not in the audit log: %s: %s", (*act, made), error)


def first_headers(scope: Scope) -> dict[str, str]:
    """Headers by their names in lower case; the first where one was sent twice."""
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in reversed(scope["headers"])
    }


def _check_address(scope: Scope) -> None:
    """Refuse NUL, which PostgreSQL does not take in a text.

    Raises:
        HTTPException: 400.
    """
    if "\0" in scope["path"] or b"%00" in scope["query_string"]:
        raise HTTPException(
            400, "found a NUL character (%00) in the path or the query; expected none"
        )


def _is_text(rule: "Rule", headers: Mapping[str, str]) -> bool:
    """Whether all of a rollout's body may be JSON, whatever it says it is."""
    if rule.binary == TENSORS:
        length = headers.get(TENSORS, "")[:20]
        return not length.isdecimal() or int(length) > MAX_DOCUMENT_BYTES
    return rule.binary != NPZ or media_type(headers) != NPZ
