"""The codes of problems, with their status and meaning, for ``/openapi.json``.

What the services raise has a code by its class; the narrower ones and those of HTTP
itself are listed here, and a test compares them with the sources.
"""

from api.errors import status_of
from services import errors

NARROW: dict[tuple[str, type[errors.ServiceError]], str] = {
    ("dataset_deleted", errors.Gone): "The dataset of this Idempotency-Key is deleted.",
    ("dataset_in_use", errors.Conflict): "A job that has not ended uses the dataset.",
    ("dataset_not_found", errors.Invalid): "There is no such dataset as it names.",
    ("gate_failed", errors.Conflict): "The version does not pass what champion asks.",
    ("idempotency_key_reused", errors.Invalid): "The key belongs to another request.",
    ("invalid_artifact", errors.Invalid): "The file is no artifact.",
    ("invalid_dataset", errors.Invalid): "The file is no dataset, or too large.",
    ("job_failed", errors.Conflict): "It has failed; it cannot be cancelled.",
    ("job_not_ended", errors.Conflict): "The job goes on: its result stays.",
    ("job_not_retriable", errors.Conflict): "Neither failed nor cancelled.",
    ("job_succeeded", errors.Conflict): "It has succeeded; it cannot be cancelled.",
    ("key_replaced", errors.Conflict): "Another key has taken its place already.",
    ("model_name_taken", errors.Conflict): "A model of another project has the name.",
    ("out_of_memory", errors.Unavailable): "The device has too little memory for it.",
    ("result_dropped", errors.Conflict): "The inputs of the job are deleted.",
    ("result_dropped", errors.Gone): "The result of the job is deleted.",
    ("result_not_ready", errors.Conflict): "The job has not succeeded.",
    ("too_many_jobs", errors.TooManyRequests): "Too many jobs of this key wait.",
    ("version_deleted", errors.Conflict): "A version that the job needs is deleted.",
    ("version_deleted", errors.Gone): "The version of this Idempotency-Key is deleted.",
    ("version_in_use", errors.Conflict): "An alias or a job needs the version.",
    ("version_not_found", errors.Invalid): "There is no such version as it names.",
}
"""Those that a class of error is raised with, and when."""

HTTP: dict[str, tuple[int, str]] = {
    "bad_request": (400, "The request cannot be read."),
    "malformed_json": (400, "The body is no JSON."),
    "method_not_allowed": (405, "The address does not take this method."),
    "not_acceptable": (406, "There is no answer of a type that Accept names."),
    "too_slow": (408, "The body came too slowly."),
    "unsupported_media_type": (415, "A Content-Type or Content-Encoding is not taken."),
    "range_not_satisfiable": (416, "The range lies beyond the end."),
    "head_too_large": (431, "The request line and the headers are too large."),
    "internal_error": (500, "Something failed here; request_id finds it in the log."),
}
"""Those of HTTP itself, without an error of the services."""

_INSIDE = (errors.LeaseLost,)


def problem_codes() -> list[dict[str, object]]:
    """Every code with its ``status`` and what it ``means``, by status and name."""
    kinds = errors.subclasses() - set(_INSIDE)
    # The widest class of a code says what it means.
    of_kinds = {
        each.default_code: each
        for each in sorted(kinds, key=lambda each: -len(each.__mro__))
    }
    found = [
        *((code, status_of(kind), _summary(kind)) for code, kind in of_kinds.items()),
        *((code, status_of(kind), means) for (code, kind), means in NARROW.items()),
        *((code, status, means) for code, (status, means) in HTTP.items()),
    ]
    return [
        {"code": code, "status": status, "means": means}
        for code, status, means in sorted(found, key=lambda each: (each[1], each[0]))
    ]


def _summary(kind: type[Exception]) -> str:
    return " ".join((kind.__doc__ or "").split("\n\n")[0].split())
