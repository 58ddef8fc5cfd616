"""The OpenAPI description: FastAPI's, rollouts and doors, which it does not see."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.middleware import NPZ
from api.problem_codes import problem_codes
from api.protocols.listed import TAGS, listed
from api.routes.rollouts import DESCRIBED, JSON
from api.schemas import ProblemOut

_REF = "#/components/schemas/{model}"
_ABOUT = """\
Surrogates of stiff systems: datasets in, trained and certified models out, rollouts
with exact derivatives. Errors are problems (RFC 9457), but for those of the doors,
which have the form of their protocols. HEAD answers as GET, without a body. Arrays
travel as JSON or as `application/x-npz` (numpy's own container), by Content-Type and
Accept."""
_NPZ_BODY = {
    "schema": {"type": "string", "format": "binary"},
    "description": "Arrays under the names of the JSON fields (tangents.x0 for one "
    "inside another); outputs and sweep (JSON) and other options are text.",
}


def describe(app: FastAPI) -> dict[str, Any]:
    """Build the description once and keep it."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title="spnode", version=app.version, description=_ABOUT, routes=app.routes
        )
        _add_security(schema)
        _add_rollouts(schema)
        _add_problems(schema)
        schema["paths"] |= listed()
        schema["tags"] = TAGS
        app.openapi_schema = schema
    return app.openapi_schema


def _add_security(schema: dict[str, Any]) -> None:
    schemes = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "basic": {"type": "http", "scheme": "basic"},
    }
    schema.setdefault("components", {})["securitySchemes"] = schemes
    schema["security"] = [{name: []} for name in schemes]
    for path, item in schema["paths"].items():
        if path.startswith("/health"):
            for operation in item.values():
                operation["security"] = []


def _add_rollouts(schema: dict[str, Any]) -> None:
    """The paths whose endpoints are bare ASGI, from the models that they use."""
    models: list[tuple[type[BaseModel], Any]] = [(ProblemOut, "serialization")]
    for _, _, _, request, reply in DESCRIBED:
        models += [(request, "validation"), (reply, "serialization")]
    _, definitions = models_json_schema(models, ref_template=_REF)
    schema["components"].setdefault("schemas", {}).update(definitions["$defs"])
    paths = {
        path: {"post": _rollout(operation, summary, request, reply)}
        for path, operation, summary, request, reply in DESCRIBED
        if path.startswith("/v1/")
    }
    schema["paths"] = {**paths, **schema["paths"]}


def _rollout(
    operation: str, summary: str, request: type[BaseModel], reply: type[BaseModel]
) -> dict[str, Any]:
    body = {
        JSON: {
            "schema": {"$ref": _REF.format(model=request.__name__)},
            "example": _example(request),
        },
        NPZ: _NPZ_BODY,
    }
    answer = {
        JSON: {"schema": {"$ref": _REF.format(model=reply.__name__)}},
        NPZ: {"schema": {"type": "string", "format": "binary"}},
    }
    return {
        "tags": ["rollouts"],
        "summary": summary,
        "description": (request.__doc__ or "").strip(),
        "operationId": f"rollout_{operation}",
        "parameters": [_TIMEOUT],
        "requestBody": {"required": True, "content": body},
        "responses": {"200": {"description": "What was computed", "content": answer}},
    }


def _example(model: type[BaseModel]) -> Any:
    extra = model.model_config.get("json_schema_extra")
    assert isinstance(extra, dict)
    examples = extra["examples"]
    assert isinstance(examples, list)
    return examples[0]


_TIMEOUT = {
    "name": "Request-Timeout",
    "in": "header",
    "required": False,
    "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": 3600},
    "description": "Seconds after which the answer is of no use any more; work that "
    "has not begun by then is dropped. Where there is none, `rollout_timeout_seconds` "
    "of `/v1/limits`.",
}


def _add_problems(schema: dict[str, Any]) -> None:
    """Every operation refuses with a problem; ``x-problems`` has their codes."""
    schema["x-problems"] = problem_codes()
    problem = {
        "description": "A problem (RFC 9457)",
        "content": {
            "application/problem+json": {
                "schema": {"$ref": _REF.format(model="ProblemOut")}
            }
        },
    }
    for item in schema["paths"].values():
        for operation in item.values():
            operation["responses"].pop("422", None)
            operation["responses"]["4XX"] = problem
            operation["responses"]["5XX"] = problem
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)
