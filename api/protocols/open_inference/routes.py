"""The Open Inference Protocol, version 2, at /v2: its routes.

::

    GET  /v2, health, models/M[/versions/V][/ready|/config|/stats], models/stats
    POST /v2/models/M[/versions/V]/infer, /v2/repository/index

``M`` is a model's name or ``name@alias``. Without a version a name means its champion,
and the newest version while there is none.
"""

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from api.computing import compute, read_body, respond
from api.deadlines import deadline_of, in_time
from api.dependencies import Gateway
from api.held_bodies import holder
from api.middleware import TENSORS, BodyTooLarge
from api.protocols.open_inference.coding import (
    accepted_coding,
    content_coding,
    packed,
    unpacked,
)
from api.protocols.open_inference.describing import (
    config,
    index,
    metadata,
    server_metadata,
)
from api.protocols.open_inference.reading import (
    HEADER,
    Envelope,
    in_its_words,
    json_end,
    read,
    request_of,
)
from api.protocols.open_inference.statistics import Version, statistics
from api.protocols.open_inference.writing import written
from api.workspace import Workspace
from services.errors import Conflict, Invalid
from services.rollouts.request import Arrays
from services.rollouts.served import Served
from services.versions import ARTIFACTS
from spnode_core.errors import InvalidInput

# Bodies and answers above this many bytes are read and written off the event loop.
_LARGE_BYTES = 64_000
_BYTES_PER_NUMBER = 20
Endpoint = Callable[[Request], Awaitable[Response]]
OF_MODEL = "/v2/models/{model}"


class Inference:
    """POST …/infer as an ASGI application."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        gateway: Gateway = scope["state"]["gateway"]
        headers: Mapping[str, str] = scope["state"]["headers"]
        deadline = deadline_of(gateway.settings, headers)
        body = await read_body(scope, receive, deadline)
        coding = content_coding(headers)
        if coding is not None:
            limit = gateway.settings.max_body_bytes
            unpacking = gateway.parsed(unpacked, body, coding, limit)
            body = await in_time(unpacking, deadline)
            _hold(scope, body)
        envelope, arrays = await _read(gateway, body, headers.get(TENSORS), deadline)
        if envelope.options.timeout:
            deadline = min(deadline, time.monotonic() + envelope.options.timeout / 1e6)
        path = scope["path_params"]
        served = await _served(scope["state"]["workspace"], path, deadline)
        _check_named(envelope, path, served)
        try:
            request = request_of(envelope, arrays, served)
            computed = await compute(
                gateway, request, served, deadline=deadline, receive=receive
            )
        except InvalidInput as error:
            raise in_its_words(error) from error
        numbers = sum(array.size for array in computed.results.values())
        if numbers * _BYTES_PER_NUMBER > _LARGE_BYTES:
            writing = gateway.parsed(written, envelope, computed)
            content, end = await in_time(writing, deadline)
        else:
            content, end = written(envelope, computed)
        sent = {"vary": "Accept-Encoding"}
        if end is not None:
            sent[HEADER] = str(end)
        coding = accepted_coding(headers, len(content))
        if coding is not None:
            content = await in_time(gateway.parsed(packed, content, coding), deadline)
            sent["content-encoding"] = coding
        kind = "application/json" if end is None else "application/octet-stream"
        await respond(send, content, kind, sent)


def _check_named(envelope: Envelope, path: Mapping[str, str], served: Served) -> None:
    """Refuse a body that names another model or version than its address.

    Raises:
        InvalidInput: It does.
    """
    told = {
        "model_name": (envelope.model_name, served.model, path["model"]),
        "model_version": (
            envelope.model_version,
            str(served.version),
            path.get("version"),
        ),
    }
    for field, (given, *own) in told.items():
        if given not in (None, "", *own):
            raise InvalidInput(
                field, found=repr(given), expected=f"{own[0]!r}, as the address has it"
            )


async def _read(
    gateway: Gateway, body: bytes, json_bytes: str | None, deadline: float
) -> tuple[Envelope, Arrays]:
    if len(body) > _LARGE_BYTES:
        limit = gateway.settings.max_json_bytes
        if json_end(json_bytes, len(body)) > limit:
            raise BodyTooLarge(limit)
        return await in_time(gateway.parsed(read, body, json_bytes), deadline)
    return read(body, json_bytes)


def _hold(scope: Scope, body: bytes) -> None:
    """Count what a body unpacked to.

    Raises:
        HTTPException: 503: there is no room for it.
    """
    is_json = TENSORS not in scope["state"]["headers"]
    state, size = scope["state"], len(body)
    held = scope["app"].state.held.hold(holder(state), size, size, is_json=is_json)
    state["held_bytes"] += held


async def _served(
    workspace: Workspace, path: Mapping[str, str], deadline: float | None = None
) -> Served:
    """The version that an address means.

    Raises:
        NotFound: There is no such model or version.
        Invalid: The name or the version is of no known form.
    """
    name, version = path["model"], path.get("version")
    if version is None:
        return await workspace.served(name, or_latest=True, deadline=deadline)
    if "@" in name:
        raise Invalid(
            "model",
            found=f"{name[:200]!r} with a version",
            expected="a version or an alias, not both",
        )
    joint = "/" if version.isdecimal() else "@"
    return await workspace.served(f"{name}{joint}{version}", deadline=deadline)


async def _server(request: Request) -> Response:
    return JSONResponse(server_metadata(request.app.version))


async def _live(request: Request) -> Response:
    return JSONResponse({"live": True})


async def _ready(request: Request) -> Response:
    found = await request.app.state.gateway.readiness.found()
    if found.is_ready:
        return JSONResponse({"ready": True})
    reasons = "; ".join(f"{name}: {state}" for name, state in found.checks.items())
    return JSONResponse({"ready": False, "error": f"not ready ({reasons})"}, 503)


async def _model(request: Request) -> Response:
    workspace: Workspace = request.state.workspace
    served = await _served(workspace, request.path_params)
    return JSONResponse(await workspace.sql(metadata, workspace.registry, served))


async def _model_ready(request: Request) -> Response:
    # What is not loaded yet is, when asked: only its artifact must be there.
    gateway: Gateway = request.app.state.gateway
    served = await _served(request.state.workspace, request.path_params)
    key = f"{ARTIFACTS}/{served.digest}"
    is_there = await gateway.in_store(gateway.blobs.exists, key)
    status = 200 if is_there else 503
    return JSONResponse({"name": served.model, "ready": is_there}, status)


async def _config(request: Request) -> Response:
    gateway: Gateway = request.app.state.gateway
    served = await _served(request.state.workspace, request.path_params)
    return JSONResponse(config(served, gateway.settings))


async def _statistics(request: Request) -> Response:
    gateway: Gateway = request.app.state.gateway
    workspace: Workspace = request.state.workspace
    path, served = request.path_params, None
    if "model" in path:
        served = await _served(workspace, path)
    tallies = gateway.batcher.statistics.known()
    versions: list[Version] = []
    if "version" not in path:
        versions = await workspace.sql(workspace.registry.versions_with, list(tallies))
    # On the event loop, where they are counted.
    return JSONResponse(statistics(tallies, versions, served))


async def _index(request: Request) -> Response:
    workspace: Workspace = request.state.workspace
    body = await request.body()
    if body.strip() and not isinstance(_parsed(body), dict):
        raise InvalidInput("body", found="no object", expected='{"ready": true}, or {}')
    return JSONResponse(await workspace.sql(index, workspace.registry))


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the body is no JSON: {error}") from error


async def _load(request: Request) -> Response:
    raise Conflict(
        "models are neither loaded nor unloaded here: every version in the registry is "
        "served, and loaded when it is asked for; see /v1/models"
    )


def _of_model(rest: str, endpoint: Any, method: str = "GET") -> list[Route]:
    """An endpoint of a model, with a version in its path and without."""
    return [
        Route(f"{OF_MODEL}{version}{rest}", endpoint, methods=[method])
        for version in ("", "/versions/{version}")
    ]


INFER = _of_model("/infer", Inference(), "POST")
"""What clients call most, found before FastAPI's own layers."""
routes = [
    *INFER,
    Route("/v2", _server),
    Route("/v2/", _server),
    Route("/v2/health/live", _live),
    Route("/v2/health/ready", _ready),
    Route("/v2/models/stats", _statistics),
    *_of_model("/stats", _statistics),
    *_of_model("/ready", _model_ready),
    *_of_model("/config", _config),
    *_of_model("", _model),
    Route("/v2/repository/index", _index, methods=["POST"]),
    Route("/v2/repository/models/{model}/load", _load, methods=["POST"]),
    Route("/v2/repository/models/{model}/unload", _load, methods=["POST"]),
]
