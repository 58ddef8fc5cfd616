"""What a refusal looks like at each door: clients of others read only their own form.

::

    /umbridge   {"error": {"type": …, "message": …}}
    /v2         {"error": "…"}
    /tesseract  {"detail": [{"type", "loc", "msg", "input"}]} for 422, else {"detail"}

Everywhere else it is a problem (RFC 9457).
"""

from collections.abc import Callable
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from api.errors import Problem, problem_of
from services.metrics import PROBLEMS

Shape = Callable[[Problem], tuple[int, Any]]


def refusal(error: Exception, scope: Scope) -> Response:
    """The answer that an exception is, in the form of the door where it came up."""
    problem = problem_of(error, scope)
    found = counted(problem, scope.get("path", ""))
    if found is None:
        return problem.response(scope)
    status, content = found
    return JSONResponse(content, status, dict(problem.headers))


def counted(problem: Problem, path: str) -> tuple[int, Any] | None:
    """Count a refusal; its status and content in the form of the door at a path.

    None where there is no door, and it stays a problem.
    """
    PROBLEMS.labels(problem.code).inc()
    for prefix, shape in SHAPES.items():
        if path == prefix or path.startswith(f"{prefix}/"):
            return shape(problem)
    return None


def _umbridge(problem: Problem) -> tuple[int, Any]:
    """UM-Bridge 1.0 knows four types; what is of none of them says its own code."""
    types = {404: "ModelNotFound", 422: "InvalidInput", 400: "InvalidInput"}
    kind = types.get(problem.status, problem.code)
    if problem.code == "rollout_failed":
        kind = "InvalidOutput"
    if problem.code == "unsupported_feature":
        kind = "UnsupportedFeature"
    # Its clients expect 400 for what is the caller's fault.
    status = 400 if problem.status in (404, 422) else problem.status
    return status, {"error": {"type": kind, "message": _said(problem)}}


def _open_inference(problem: Problem) -> tuple[int, Any]:
    status = 400 if problem.status == 422 else problem.status
    return status, {"error": _said(problem)}


def _said(problem: Problem) -> str:
    """The detail, of a row that failed without its remedy, which no door takes."""
    is_failed = problem.code == "rollout_failed" and problem.errors
    return problem.errors[0]["detail"] if is_failed else problem.detail


def _tesseract(problem: Problem) -> tuple[int, Any]:
    """As pydantic tells it, since the client makes a ValidationError of a 422."""
    if problem.status != 422:
        return problem.status, {"detail": problem.detail}
    places = problem.errors or ({"pointer": "", "detail": problem.detail},)
    return 422, {
        "detail": [
            {
                "type": "value_error",
                "loc": ["body", *place["pointer"].split("/")[1:]],
                "msg": place["detail"],
                "input": None,
                "ctx": {"error": place["detail"]},
            }
            for place in places
        ]
    }


SHAPES: dict[str, Shape] = {
    "/umbridge": _umbridge,
    "/v2": _open_inference,
    "/tesseract": _tesseract,
}
"""Path of a door and the form of its refusals."""
