"""``/umbridge``: the protocol UM-Bridge 1.0, for its clients as they are.

::

    GET  /umbridge/Info            the models      /umbridge/robertson/Info    that one
    POST /umbridge/Evaluate        … by name       /umbridge/robertson/Evaluate

The clients send no content type and read no status, so bodies are JSON whatever is said
of them, and what is wrong is said in the protocol's own words.
"""

from typing import Any

import numpy as np
import orjson
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from api.computing import read_body, respond
from api.deadlines import deadline_of, in_time
from api.dependencies import Gateway
from api.protocols.umbridge.body import Call, read_call
from api.protocols.umbridge.calls import COMPUTED, Calling
from api.protocols.umbridge.config import Config, read_config
from api.protocols.umbridge.view import View, make_view
from api.workspace import Workspace
from services.errors import Invalid, NotFound
from services.rollouts.served import Served, are_all
from services.versions import CHAMPION, LATEST, ModelRecord
from spnode_core.errors import InvalidInput

PREFIX = "/umbridge"
VERSION = 1.0
_ASKED = ("ModelInfo", "InputSizes", "OutputSizes")
OPERATIONS = (*_ASKED, *COMPUTED)
# Bodies above this many bytes are read off the event loop.
_LARGE_BYTES = 64_000
# Views are kept for configs that take at most so many bytes with their times, and at
# most so many of them.
_KEPT_BYTES = 32_768
_KEPT = 1024


class UnsupportedFeature(HTTPException):
    """The protocol, or a client, knows something that this door does not."""

    code = "unsupported_feature"

    def __init__(self, name: str) -> None:
        found = f"found {name[:80]!r}; expected one of {', '.join(OPERATIONS)}"
        super().__init__(400, found)


class Door:
    """All routes below ``/umbridge`` as one ASGI application."""

    def __init__(self) -> None:
        self._views: dict[tuple[str, int, str, bytes], View] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        parts = [part for part in scope["path"].split("/") if part][1:]
        if scope["method"] == "POST":
            operation = parts.pop() if parts else ""
            fields = await self._answer(scope, receive, operation, "/".join(parts))
        else:
            state = scope["state"]
            fields = await self._described(state["gateway"], state["workspace"], parts)
        content = orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY)
        await respond(send, content, "application/json")

    async def _answer(
        self, scope: Scope, receive: Receive, operation: str, address: str
    ) -> dict[str, Any]:
        gateway: Gateway = scope["state"]["gateway"]
        if operation not in OPERATIONS:
            raise UnsupportedFeature(operation)
        deadline = deadline_of(gateway.settings, scope["state"]["headers"])
        body = await read_body(scope, receive, deadline)
        large = len(body) > _LARGE_BYTES
        if large:
            call = await in_time(gateway.parsed(read_call, body), deadline)
        else:
            call = read_call(body)
        workspace: Workspace = scope["state"]["workspace"]
        served = await _served(workspace, call.name, address, deadline)
        if operation == "ModelInfo":
            return {"support": dict.fromkeys(COMPUTED, True)}
        if large:
            viewing = gateway.parsed(self._view, gateway, served, call)
            view = await in_time(viewing, deadline)
        else:
            view = self._view(gateway, served, call)
        if operation == "InputSizes":
            return {"inputSizes": view.input_sizes}
        if operation == "OutputSizes":
            return {"outputSizes": view.output_sizes}
        calling = Calling(gateway, served, view, call, deadline, receive)
        with np.errstate(over="ignore", invalid="ignore"):
            output = await COMPUTED[operation](calling)
        _check_finite(output)
        return {"output": output}

    def _view(self, gateway: Gateway, served: Served, call: Call) -> View:
        """The view of a config, which the next call has again most of the time."""
        try:
            config = orjson.dumps(call.config)
        except orjson.JSONEncodeError as error:
            found = f"what cannot be written again ({error})"
            raise InvalidInput("config", found=found, expected="few levels") from error
        key = (served.model, served.version, served.digest, config)
        view = self._views.get(key)
        if view is None:
            view = make_view(served, read_config(call.config), gateway.limits.times)
            sizes = (array.nbytes for array in view.shared.values())
            if len(config) + sum(sizes) <= _KEPT_BYTES:
                if len(self._views) >= _KEPT:
                    self._views.clear()
                self._views[key] = view
        return view

    async def _described(
        self, gateway: Gateway, workspace: Workspace, parts: list[str]
    ) -> dict[str, Any]:
        """``Info``, or what is at an address of the door for a person who looks."""
        last = parts[-1] if parts else ""
        if last in OPERATIONS:
            raise HTTPException(405)
        address = "/".join(parts[:-1] if last == "Info" else parts)
        served = None
        if address:
            served = await _served(workspace, address, "")
            models = [address]
        else:
            models = await workspace.sql(_names, workspace)
        info = {"protocolVersion": VERSION, "models": models}
        if last == "Info":
            return info
        if served is not None:
            view = make_view(served, Config(), gateway.limits.times)
            info |= {
                "version": served.version,
                "inputs": view.labels(),
                "outputs": [served.signature.states],
            }
        return info | {"operations": OPERATIONS, "config": Config.model_json_schema()}


async def _served(
    workspace: Workspace, name: str, address: str, deadline: float | None = None
) -> Served:
    """The version that a call's ``name`` means, at an address that may be one model's.

    Raises:
        NotFound: There is none, or another one at this address.
    """
    reference = _reference(name)
    if address and _reference(address) != reference:
        hint = f"this address has {address[:80]!r} alone"
        raise NotFound("model", name[:80], hint=hint)
    try:
        return await workspace.served(reference, deadline=deadline)
    except Invalid as error:
        hint = f"a name is {error.expected}"
        raise NotFound("model", name[:80], hint=hint) from error


def _reference(name: str) -> str:
    """``robertson:3`` and ``robertson:champion``, as other servers write them, too."""
    model, colon, which = name.partition(":")
    return f"{model}{'/' if which.isdecimal() else '@'}{which}" if colon else name


def _names(workspace: Workspace) -> list[str]:
    """Names of all models in order, and what aliases they have."""
    names: list[str] = []
    after = None
    while True:
        page = workspace.registry.models(limit=100, after=after)
        for model in page.items:
            names += _names_of(model)
        if page.next is None:
            return sorted(names)
        after = page.next


def _names_of(model: ModelRecord) -> list[str]:
    names = [f"{model.name}@{alias}" for alias in model.aliases]
    if CHAMPION in model.aliases:
        names.append(model.name)
    if model.latest is not None:
        names.append(f"{model.name}@{LATEST}")
    return names


def _check_finite(output: np.ndarray | list[np.ndarray]) -> None:
    vectors = output if isinstance(output, list) else [output]
    if not all(are_all(np.isfinite(vector)) for vector in vectors):
        raise InvalidInput(
            "input",
            found="numbers whose output is not finite",
            expected="input, sens and vec with a finite output",
        )


_DOOR = Door()
ENDPOINTS = {f"{PREFIX}/{operation}": _DOOR for operation in COMPUTED}
"""What clients call most, found before FastAPI's own layers."""
routes = [
    Route(path, _DOOR, methods=["GET", "POST"])
    for path in (PREFIX, f"{PREFIX}/{{rest:path}}")
]
"""All of the door."""
