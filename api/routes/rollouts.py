"""POST /v1/rollout, its derivatives and /v1/objective: the hot path.

ASGI callables that are found before FastAPI's own layers, since what these do for every
request costs more than a small rollout. The same models feed OpenAPI.
"""

from collections.abc import Mapping

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from api.computing import Computed, compute, read_body, respond
from api.content_types import media_type, refuse_type
from api.deadlines import deadline_of, in_time
from api.dependencies import Gateway
from api.middleware import NPZ
from api.schemas import (
    HvpOut,
    JacobianOut,
    JvpOut,
    ObjectiveOut,
    RolloutOut,
    VjpOut,
)
from api.workspace import Workspace
from services.rollouts.encoding import to_json, to_npz
from services.rollouts.request import (
    REQUESTS,
    Operation,
    Request,
    from_json,
    from_npz,
)

JSON = "application/json"
# Bodies and answers above this many bytes are parsed and written off the event loop.
LARGE_BYTES = 64_000
# Characters that a number takes in JSON, about.
_BYTES_PER_NUMBER = 20


class RolloutEndpoint:
    """One operation as an ASGI application."""

    def __init__(self, operation: Operation) -> None:
        self.operation: Operation = operation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        gateway: Gateway = scope["state"]["gateway"]
        headers: Mapping[str, str] = scope["state"]["headers"]
        deadline = deadline_of(gateway.settings, headers)
        as_npz = _wants_npz(headers)
        body = await read_body(scope, receive, deadline)
        if len(body) > LARGE_BYTES:
            reading = gateway.parsed(self._request, gateway, headers, body)
            request = await in_time(reading, deadline)
        else:
            request = self._request(gateway, headers, body)
        workspace: Workspace = scope["state"]["workspace"]
        served = await workspace.served(request.options.model, deadline=deadline)
        computed = await compute(
            gateway, request, served, deadline=deadline, receive=receive
        )
        numbers = sum(array.size for array in computed.results.values())
        if numbers * _BYTES_PER_NUMBER > LARGE_BYTES:
            writing = gateway.parsed(_encoded, computed, as_npz)
            content = await in_time(writing, deadline)
        else:
            content = _encoded(computed, as_npz)
        await respond(send, content, NPZ if as_npz else JSON)

    def _request(
        self, gateway: Gateway, headers: Mapping[str, str], body: bytes
    ) -> Request:
        kind = media_type(headers) or JSON
        if kind == NPZ:
            return from_npz(self.operation, body, gateway.settings.max_body_bytes)
        if kind != JSON:
            refuse_type(kind, f"{JSON} or {NPZ}")
        return from_json(self.operation, body)


def _encoded(computed: Computed, as_npz: bool) -> bytes:
    fields, layout = computed.fields(), computed.layout
    if as_npz:
        return to_npz(fields)
    many = computed.request.operation if layout.leading else None
    return to_json(fields, batched=layout.batched, many=many)


def _wants_npz(headers: Mapping[str, str]) -> bool:
    accept = headers.get("accept", "").lower()
    if NPZ in accept:
        return True
    if not accept or "*/*" in accept or "application/*" in accept or JSON in accept:
        return False
    raise HTTPException(406, f"found Accept {accept[:80]!r}; expected {JSON} or {NPZ}")


_ANSWERS: dict[Operation, type[BaseModel]] = {
    "rollout": RolloutOut,
    "jvp": JvpOut,
    "vjp": VjpOut,
    "hvp": HvpOut,
    "jacobian": JacobianOut,
    "objective": ObjectiveOut,
}
_PATHS: dict[str, Operation] = {
    "/v1/rollout": "rollout",
    "/rollout": "rollout",
    "/v1/rollout/jvp": "jvp",
    "/v1/rollout/vjp": "vjp",
    "/v1/rollout/hvp": "hvp",
    "/v1/rollout/jacobian": "jacobian",
    "/v1/objective": "objective",
}
_SUMMARIES: dict[Operation, str] = {
    "rollout": "Roll out one or many initial states",
    "jvp": "Roll out with a directional derivative",
    "vjp": "Roll out with gradients of weighted outputs",
    "hvp": "Multiply the Hessian of weighted outputs by directions",
    "jacobian": "Roll out with the derivative by every input",
    "objective": "Value and gradient of an objective of the rollout",
}

ENDPOINTS = {path: RolloutEndpoint(operation) for path, operation in _PATHS.items()}
"""By path, each a POST."""
routes = [
    Route(path, endpoint, methods=["POST"]) for path, endpoint in ENDPOINTS.items()
]
"""The same within FastAPI: for other methods, and for addresses with a prefix."""

DESCRIBED = [
    (path, operation, _SUMMARIES[operation], REQUESTS[operation], _ANSWERS[operation])
    for path, operation in _PATHS.items()
]
"""Path, operation, summary, request and answer of each, for OpenAPI."""
