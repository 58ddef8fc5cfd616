"""The errors of the services, each with a stable code; HTTP numbers live in the API.

::

    ServiceError
    ├── NotFound               no such dataset, job, model, version, alias, key
    ├── Gone                   it was there and has been deleted
    ├── Conflict               the state of the thing does not allow it
    ├── Invalid                a value cannot be used: field, found, expected
    │   └── WorkersDied        each worker that computed the request has died of it
    ├── PreconditionRequired   the thing exists: say which revision you mean
    ├── PreconditionFailed     it has changed since the revision you name
    ├── Unauthorised           no key, or a key that is not valid
    ├── Forbidden              the key lacks a scope
    ├── TooLarge               a body, an upload or an answer over its limit
    ├── Overloaded             too much is waiting: come back in retry_after_s
    │   └── TooManyRequests    this caller asks too often, or has too much waiting
    ├── DeadlinePassed         the caller's deadline passed before the answer
    ├── Unavailable            a store, a database or a queue does not answer
    │   └── ContentGone        a content was deleted before its record was there
    ├── RolloutFailed          a trajectory left the finite range: row, time
    └── LeaseLost              another worker holds the job now
"""

import errno
from typing import Any, ClassVar


class ServiceError(Exception):
    """Base of every error that the services raise on purpose.

    Args:
        message: What was wrong, found and expected, and what to do, in a sentence.
        code: A narrower code than the class's own, snake_case.
    """

    default_code: ClassVar[str] = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        self.message = message
        self.code = code or self.default_code
        super().__init__(message)


class NotFound(ServiceError):
    """There is no such thing.

    Args:
        kind: The noun, e.g. ``"job"``.
        name: What was asked for.
        hint: What to do instead, a sentence.
    """

    default_code = "not_found"

    def __init__(self, kind: str, name: str, *, hint: str = "") -> None:
        self.kind = kind
        self.name = name
        message = f"there is no {kind} {name!r}"
        super().__init__(f"{message}; {hint}" if hint else message)


class Gone(ServiceError):
    """It was there and has been deleted: nobody needs to look for it again."""

    default_code = "gone"


class Conflict(ServiceError):
    """The state of the thing does not allow what was asked."""

    default_code = "conflict"


class Invalid(ServiceError):
    """A value that cannot be used.

    Args:
        field: JSON pointer into the request (``"/surrogate/latent"``), or a place in
            an uploaded file (``"states[3, 17, 1]"``).
        found: What was there, in words and with its value.
        expected: What belongs there, in words.
        code: A narrower code than ``invalid``.
    """

    default_code = "invalid"

    def __init__(
        self, field: str, *, found: str, expected: str, code: str | None = None
    ) -> None:
        self.field = field
        self.found = found
        self.expected = expected
        super().__init__(f"{field}: found {found}; expected {expected}", code=code)


class WorkersDied(Invalid):
    """Each rollout worker that computed the request has died of it."""

    default_code = "workers_died"


class PreconditionRequired(ServiceError):
    """The thing exists already, and the caller did not say which revision it means."""

    default_code = "precondition_required"


class PreconditionFailed(ServiceError):
    """The thing has changed since the revision that the caller names."""

    default_code = "precondition_failed"


class Unauthorised(ServiceError):
    """No key, or one that is unknown, malformed or revoked."""

    default_code = "unauthorised"


class Forbidden(ServiceError):
    """The key is valid and lacks the scope."""

    default_code = "forbidden"


class TooLarge(ServiceError):
    """A body, an upload or an answer above its limit; the message names both."""

    default_code = "too_large"


class Overloaded(ServiceError):
    """Too much is waiting.

    Args:
        message: What is full.
        retry_after_s: When to come back, seconds.
        code: A narrower code than the class's own.
    """

    default_code = "overloaded"

    def __init__(
        self, message: str, *, retry_after_s: float, code: str | None = None
    ) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message, code=code)


class TooManyRequests(Overloaded):
    """A caller asks more often, or has more waiting, than it may."""

    default_code = "too_many_requests"


class DeadlinePassed(ServiceError):
    """The caller's deadline passed before the answer was ready."""

    default_code = "deadline_passed"


class Unavailable(ServiceError):
    """A store, a database, a queue or a worker that is needed does not answer.

    Args:
        message: What callers are told.
        code: A narrower code than the class's own.
        reason: What whoever runs the service is told as well: it may name hosts.
    """

    default_code = "unavailable"

    def __init__(
        self, message: str, *, code: str | None = None, reason: object = None
    ) -> None:
        super().__init__(message, code=code)
        if reason is not None:
            self.args = (f"{message}: {reason}",)


def is_away(error: Exception) -> bool:
    """Whether it says that something does not answer now, and may later."""
    return isinstance(error, Unavailable) and error.code == Unavailable.default_code


class ContentGone(Unavailable):
    """A content was deleted between its put and its record; it is to be put again."""


class RolloutFailed(ServiceError):
    """A trajectory left the finite range.

    Args:
        row: Index of the trajectory in the request.
        time: First requested time at which it is not finite.
        has_others: Whether there are rows that are finite, and are not given.
    """

    default_code = "rollout_failed"

    def __init__(self, *, row: int, time: float, has_others: bool = False) -> None:
        self.row = row
        self.time = time
        self.has_others = has_others
        self.reason = f"row {row} is not finite from time {time!r} on"
        remedy = "; on_error: mask gives the other rows" if has_others else ""
        super().__init__(self.reason + remedy)


class LeaseLost(ServiceError):
    """The job is another worker's now, or ended: this worker's writes are refused."""

    default_code = "lease_lost"


def subclasses(of: type[ServiceError] = ServiceError) -> set[type[ServiceError]]:
    """Return every class below ``of``, for tables that must name each of them."""
    below = set(of.__subclasses__())
    return below.union(*(subclasses(each) for each in below)) if below else below


def as_dict(error: ServiceError) -> dict[str, Any]:
    """Return ``{code, detail, field?}``, the form in which a job keeps its error."""
    kept: dict[str, Any] = {"code": error.code, "detail": error.message}
    if isinstance(error, Invalid):
        kept["field"] = error.field
    return kept


def is_disk_full(error: OSError) -> bool:
    """Whether a full disk, a quota or a limit of files is what stood in the way."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
