"""``/tesseract``: every version as a Tesseract, for tesseract-core and tesseract-jax.

::

    /tesseract                        the models
    /tesseract/{model}/{version}      what one takes    version: 3, latest, an alias
    /tesseract/{model}                the champion
    …/apply, …/health, …              the endpoints of a Tesseract
"""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from api.computing import Computed, compute, read_body
from api.deadlines import deadline_of, in_time
from api.dependencies import Gateway
from api.protocols.tesseract.arrays import FORMATS, format_of, written
from api.protocols.tesseract.call import Call, evaluated, read_call
from api.protocols.tesseract.description import (
    GET_ENDPOINTS,
    POST_ENDPOINTS,
    describe,
    inputs_of,
)
from api.workspace import Workspace
from services.errors import NotFound, RolloutFailed
from services.rollouts.served import Served
from spnode_core.errors import InvalidInput

PREFIX = "/tesseract"
JSON = "application/json"
# Bodies and answers above this many bytes are parsed and written off the event loop.
_LARGE_BYTES = 64_000
_PAGE = 100


class Tesseracts:
    """The door as an ASGI application; its path is in ``path_params``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        gateway: Gateway = scope["state"]["gateway"]
        workspace: Workspace = scope["state"]["workspace"]
        path = scope.get("path_params", {}).get("path", "")
        reference, endpoint = _parts(path)
        _check_method(scope, reference, endpoint)
        if not reference:
            response = await _models(workspace, scope)
        elif endpoint in POST_ENDPOINTS:
            deadline = deadline_of(gateway.settings, scope["state"]["headers"])
            served = await workspace.served(_written(reference), deadline=deadline)
            response = await _posted(scope, receive, served, endpoint, deadline)
        else:
            served = await workspace.served(_written(reference))
            response = _got(gateway, served, "/".join(reference), endpoint)
        await response(scope, receive, send)


DOOR = Tesseracts()
routes = [Route(PREFIX, DOOR), Route(f"{PREFIX}/{{path:path}}", DOOR)]
"""For any method, since a wrong one is refused in the form of this door."""


def _parts(path: str) -> tuple[list[str], str]:
    """The parts that name a version, and the endpoint, empty where none is named.

    Raises:
        NotFound: They are too many.
    """
    parts = path.split("/") if path else []
    endpoint = ""
    if len(parts) > 1 and parts[-1] in (*GET_ENDPOINTS, *POST_ENDPOINTS):
        endpoint = parts.pop()
    if len(parts) > 2:
        raise _no_endpoint("/".join(parts[2:]))
    return parts, endpoint


def _no_endpoint(name: str) -> NotFound:
    known = ", ".join((*POST_ENDPOINTS, *GET_ENDPOINTS))
    return NotFound("endpoint", name[:200], hint=f"a version has {known}")


def _written(reference: list[str]) -> str:
    """A reference as it is written elsewhere: ``name``, ``name/3``, ``name@alias``."""
    if len(reference) == 1:
        return reference[0]
    name, version = reference
    return f"{name}/{version}" if version.isdecimal() else f"{name}@{version}"


def _check_method(scope: Scope, reference: list[str], endpoint: str) -> None:
    """Refuse a method that a path does not take.

    Raises:
        NotFound: A POST names a version, but no endpoint of it.
        HTTPException: 405.
    """
    if scope["method"] == "POST" and reference and not endpoint:
        raise _no_endpoint(scope["path"])
    allowed = ("POST",) if endpoint in POST_ENDPOINTS else ("GET", "HEAD")
    if scope["method"] not in allowed:
        raise HTTPException(405, headers={"Allow": ", ".join(allowed)})


async def _models(workspace: Workspace, scope: Scope) -> Response:
    """The bare path: what there is."""
    after = QueryParams(scope["query_string"]).get("after")
    page = await workspace.sql(workspace.registry.models, limit=_PAGE, after=after)
    models = [
        {
            "name": model.name,
            "aliases": model.aliases,
            "latest": model.latest,
            "url": f"{PREFIX}/{model.name}/latest",
        }
        for model in page.items
    ]
    return _json({"models": models, "next": page.next})


def _got(gateway: Gateway, served: Served, reference: str, endpoint: str) -> Response:
    if endpoint == "health":
        return _json({"status": "ok"})
    jacobian = gateway.settings.tesseract_jacobian
    if endpoint == "openapi.json":
        return _json(describe(served, reference, jacobian=jacobian))
    signature = served.signature
    return _json(
        {
            "model": served.model,
            "version": served.version,
            "digest": served.digest,
            "inputs": inputs_of(signature),
            "outputs": {"x": f"(time, state): {', '.join(signature.states)}"},
            "endpoints": [*POST_ENDPOINTS, *GET_ENDPOINTS],
        }
    )


async def _posted(
    scope: Scope, receive: Receive, served: Served, endpoint: str, deadline: float
) -> Response:
    gateway: Gateway = scope["state"]["gateway"]
    headers: Mapping[str, str] = scope["state"]["headers"]
    form = format_of(headers.get("accept", ""))
    if form is None:
        return _not_acceptable(headers["accept"])
    body = await read_body(scope, receive, deadline)
    if endpoint == "abstract_eval":
        return _json(evaluated(body, served, gateway.limits))
    if len(body) > _LARGE_BYTES:
        reading = gateway.parsed(read_call, endpoint, body, served, gateway.limits)
        call = await in_time(reading, deadline)
    else:
        call = read_call(endpoint, body, served, gateway.limits)
    try:
        computed = await compute(
            gateway, call.request, served, deadline=deadline, receive=receive
        )
        size = sum(array.nbytes for array in computed.results.values())
        # A Jacobian of rows is larger than what was computed of it.
        if size > _LARGE_BYTES or endpoint == "jacobian":
            writing = gateway.parsed(_encoded, call, computed, form)
            content = await in_time(writing, deadline)
        else:
            content = _encoded(call, computed, form)
    except (InvalidInput, RolloutFailed) as error:
        raise call.renamed(error) from error
    return Response(content, media_type=f"application/{form}")


def _encoded(call: Call, computed: Computed, form: str) -> bytes:
    arrays = call.answer(computed.fields())
    content = {
        name: {key: written(each, form) for key, each in found.items()}
        if isinstance(found, dict)
        else written(found, form)
        for name, found in arrays.items()
    }
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def _not_acceptable(accept: str) -> Response:
    detail = {
        "message": f"found Accept {accept[:80]!r}; expected one of these formats",
        "available_formats": FORMATS,
        "available_gpu_transports": ["none"],
        "available_compressions": ["none"],
    }
    return _json({"detail": detail}, status=406)


def _json(content: Any, *, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type=JSON)
