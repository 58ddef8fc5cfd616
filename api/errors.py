"""Every error of the native API as a problem (RFC 9457): the one place of status codes.

::

    services.errors, spnode_core.errors ─┐
    pydantic, FastAPI, Starlette ────────┼─▶ Problem ─▶ application/problem+json
    anything else (logged, 500) ─────────┘
"""

import http
import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from api.deadlines import BodyNotInTime
from api.expected import expected
from api.fields import fields_at, root_of
from services import errors
from services.blobs import Damaged, Lost
from spnode_core.errors import ArtifactError, InvalidInput, SpnodeError, one_of

STATUS: dict[type[Exception], int] = {
    errors.NotFound: 404,
    errors.Gone: 410,
    errors.Conflict: 409,
    errors.Invalid: 422,
    errors.WorkersDied: 422,
    errors.PreconditionRequired: 428,
    errors.PreconditionFailed: 412,
    errors.Unauthorised: 401,
    errors.Forbidden: 403,
    errors.TooLarge: 413,
    errors.Overloaded: 503,
    errors.TooManyRequests: 429,
    errors.DeadlinePassed: 504,
    BodyNotInTime: 504,
    errors.Unavailable: 503,
    errors.ContentGone: 503,
    errors.RolloutFailed: 422,
    errors.LeaseLost: 409,
    Damaged: 500,
    Lost: 500,
    errors.ServiceError: 500,
    InvalidInput: 422,
    ArtifactError: 422,
    SpnodeError: 500,
}
"""Status of each class; a class that is not here has that of its nearest base."""

PROBLEM = "application/problem+json"
CODES = {
    400: "bad_request",
    401: "unauthorised",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    408: "too_slow",
    413: "too_large",
    415: "unsupported_media_type",
    416: "range_not_satisfiable",
    422: "invalid",
    500: "internal_error",
    503: "overloaded",
}
"""Code of each status where no error of the services says a narrower one."""
_RETRY_UNAVAILABLE_S = 2
_LOG = logging.getLogger(__name__)
_PLACE = re.compile(r"[^.\[\], ]+")
# Longest echo of a value that was sent.
_ECHO = 120


@dataclass(frozen=True)
class Problem:
    """One problem, ready to be sent.

    Args:
        status: HTTP status.
        code: What went wrong, snake_case, stable.
        detail: A sentence with what was wrong, found and expected.
        errors: Places in the request, each a JSON pointer and a detail.
        headers: Headers beside the content type.
    """

    status: int
    code: str
    detail: str
    errors: tuple[dict[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """What is known of it without a request."""
        content: dict[str, Any] = {
            "type": f"urn:spnode:problem:{self.code}",
            "title": http.HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        if self.errors:
            content["errors"] = list(self.errors)
        return content

    def response(self, scope: Scope) -> Response:
        """The response, with the request's id and path."""
        content = self.content() | {
            "instance": scope.get("path", ""),
            "request_id": scope.get("state", {}).get("request_id", ""),
        }
        return Response(
            json.dumps(content, ensure_ascii=False).encode(errors="replace"),
            self.status,
            dict(self.headers),
            PROBLEM,
        )


def problem_of(error: Exception, scope: Scope) -> Problem:
    """The problem that an exception is; those that are not meant are logged."""
    if isinstance(error, (errors.ServiceError, SpnodeError)):
        return _ours(error, scope)
    if isinstance(error, (ValidationError, RequestValidationError)):
        return _validation(error, scope)
    if isinstance(error, HTTPException):
        return _http(error, scope)
    _LOG.error("%s %r failed", scope.get("method"), scope.get("path"), exc_info=error)
    return Problem(
        500,
        "internal_error",
        "something failed here that is not your fault; the request_id finds it in the "
        "gateway's log",
    )


def status_of(kind: type[Exception]) -> int:
    """Status of a class, its own or its nearest base's."""
    return next((STATUS[base] for base in kind.__mro__ if base in STATUS), 500)


def pointer(place: str) -> str:
    """A place in words (``x0[2]``, ``times.count``) as a JSON pointer (``/x0/2``)."""
    if place.startswith("/"):
        return place
    return "".join(f"/{part}" for part in _PLACE.findall(place))


def _ours(error: Exception, scope: Scope) -> Problem:
    status = status_of(type(error))
    code = getattr(error, "code", CODES.get(status, "error"))
    if status >= 500 and not isinstance(error, errors.Overloaded):
        _LOG.error("%s %r: %s", scope.get("method"), scope.get("path"), error)
    # Hosts and users are not for callers.
    is_away = isinstance(error, errors.Unavailable)
    detail = error.message if is_away else str(error)
    headers: dict[str, str] = {}
    places: tuple[dict[str, str], ...] = ()
    if isinstance(error, (errors.Invalid, InvalidInput)):
        said = f"found {error.found}; expected {error.expected}"
        places = ({"pointer": pointer(error.field), "detail": said},)
    elif isinstance(error, errors.RolloutFailed):
        places = ({"pointer": f"/x0/{error.row}", "detail": error.reason},)
    elif isinstance(error, BodyNotInTime):
        headers["connection"] = "close"
    elif isinstance(error, errors.Overloaded):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    elif isinstance(error, errors.Unavailable):
        headers["retry-after"] = str(_RETRY_UNAVAILABLE_S)
    elif isinstance(error, errors.Unauthorised):
        headers["www-authenticate"] = 'Bearer realm="spnode", Basic realm="spnode"'
    return Problem(status, code, detail, places, headers)


def _http(error: HTTPException, scope: Scope) -> Problem:
    if isinstance(error.__cause__, errors.ServiceError):
        # FastAPI's wrapping of what the parsing of a body raised.
        return _ours(error.__cause__, scope)
    detail = str(error.detail)
    if error.status_code == 404:
        detail = f"there is nothing at {scope.get('path')}; see /docs"
    if error.status_code == 405:
        detail = f"{scope.get('path')} does not take {scope.get('method')}"
    code = getattr(error, "code", CODES.get(error.status_code, "error"))
    headers = dict(error.headers or {})
    if error.status_code == 405 and (allowed := _allowed(scope)):
        headers["Allow"] = allowed
    return Problem(error.status_code, code, detail, headers=headers)


def _allowed(scope: Scope) -> str:
    """Every method of an address: routers name those of the first route there."""
    paths = scope["app"].openapi()["paths"]
    here = scope["path"].split("/")
    fitting = [
        path
        for path in paths
        if len(parts := path.split("/")) == len(here)
        and all(a == b or a.startswith("{") for a, b in zip(parts, here, strict=True))
    ]
    exact = [path for path in fitting if path == scope["path"]]
    methods = {method.upper() for path in exact or fitting for method in paths[path]}
    if "GET" in methods:
        methods.add("HEAD")
    return ", ".join(sorted(methods))


def _validation(
    error: ValidationError | RequestValidationError, scope: Scope
) -> Problem:
    found = list(error.errors())
    if any(each["type"] == "json_invalid" for each in found):
        reason = found[0].get("ctx", {}).get("error", found[0]["msg"])
        return Problem(400, "malformed_json", f"the body is no JSON: {reason}")
    is_body = isinstance(error, RequestValidationError)
    body = error.body if isinstance(error, RequestValidationError) else None
    root = root_of(error, scope)
    places = tuple(_place(each, body, root, strip=is_body) for each in found[:20])
    first = places[0]
    detail = f"{first['pointer'] or 'the body'}: {first['detail']}"
    if len(found) > 1:
        detail += f" (and {len(found) - 1} more)"
    return Problem(422, "invalid", detail, places)


def _place(
    error: Mapping[str, Any], body: object, root: Any, *, strip: bool
) -> dict[str, str]:
    parts: Sequence[Any] = error["loc"]
    tagged = parts[1:] if strip else parts
    if strip and parts and parts[0] in ("body", "query", "path", "header"):
        where, parts = parts[0], parts[1:]
        if where == "body":
            parts = _without_tags(parts, body, error["type"])
    else:
        # What is not known may be called as a tag is.
        last = len(parts) - (error["type"] == "extra_forbidden")
        kept = [part for part in parts[:last] if part not in _TAGS]
        parts = [*kept, *parts[last:]]
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        parts = [*parts, error["ctx"]["discriminator"].strip("'")]
    if error["type"] == "extra_forbidden" and (known := fields_at(root, tagged)):
        detail = f"{_UNKNOWN}; expected {one_of(str(tagged[-1]), known)}"
    else:
        detail = _sentence(error, parts[-1] if parts else "")
    return {"pointer": "".join(f"/{part}" for part in parts), "detail": detail}


_UNKNOWN = "found a field that is not known here"


# Tags of the unions in services/rollouts/wire.py and the doors: pydantic puts them
# into places.
_TAGS = {"1", "2", "3", "4", "list", "number", "spaced", "stepped"}
_TAGS |= {"misfit", "quadratic"}


def _without_tags(parts: Sequence[Any], body: object, kind: str) -> list[Any]:
    """The place without the tags of unions, by walking what was sent."""
    kept: list[Any] = []
    skipped_at: object = None
    for index, part in enumerate(parts):
        is_tag = isinstance(body, dict) and body.get("kind") == part
        if is_tag and skipped_at is not body:
            skipped_at = body
        elif _has(body, part):
            kept.append(part)
            body = body[part]  # type: ignore[index]
        elif index == len(parts) - 1 and (kind == "missing" or not kept):
            kept.append(part)
    return kept


def _has(body: object, part: object) -> bool:
    if isinstance(body, list):
        return isinstance(part, int) and part < len(body)
    return isinstance(body, dict) and part in body


def _sentence(error: Mapping[str, Any], field: object) -> str:
    kind, said = error["type"], str(error["msg"])
    if kind in ("missing", "union_tag_not_found"):
        return "found nothing; this field is required"
    if kind == "extra_forbidden":
        return f"{_UNKNOWN}; see /docs for those that are"
    if kind == "union_tag_invalid":
        context = error["ctx"]
        return f"found {context['tag']!r}; expected one of {context['expected_tags']}"
    if kind == "value_error":
        return said.removeprefix("Value error, ")
    echo = repr(error.get("input"))
    if len(echo) > _ECHO:
        echo = echo[:_ECHO] + "…"
    return f"found {echo}; expected {expected(error, field)}"
