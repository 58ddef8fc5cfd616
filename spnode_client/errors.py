"""What can go wrong between a program and the service.

::

    ClientError
    ├── Unreachable       no answer came, after the retries
    ├── DeadlinePassed    a call had no answer within its ``timeout_s``
    ├── ProblemError      the service refused; carries its problem document (RFC 9457)
    │   ├── InvalidRequest   400, 413, 415, 422: the request must change
    │   ├── Forbidden        401, 403: the key is missing, unknown or too narrow
    │   ├── NotFound         404, 410: it is not there, or not any more
    │   ├── Conflict         409, 412, 428: the state of things forbids it
    │   ├── Overloaded       429, 503: later, after ``retry_after`` seconds
    │   └── ServiceFault     any other 5xx
    └── JobFailed         a job ended as failed or cancelled; carries its record
"""

from typing import Any


class ClientError(Exception):
    """Base of every error that this package raises on purpose."""


class DomainWarning(UserWarning):
    """A rollout left the box or the time range of its model's training data."""


class Unreachable(ClientError):
    """No answer came from the service, after the retries."""


class DeadlinePassed(ClientError, TimeoutError):
    """A call had no answer within its ``timeout_s``, or no time for another try.

    What the last try met, where one ended, is its ``__cause__``.
    """


class ProblemError(ClientError):
    """The service refused a request.

    Args:
        status: HTTP status of the answer.
        problem: The problem document, ``{type, title, status, detail, code, ...}``.
        retry_after: Seconds after which the service invites another try.

    Attributes:
        is_doubtful: Whether an earlier try of the same call may have been done, since
            its answer was lost or said that the service failed.
    """

    is_doubtful = False

    def __init__(
        self, status: int, problem: dict[str, Any], retry_after: float | None = None
    ) -> None:
        self.status = status
        self.problem = problem
        self.retry_after = retry_after
        super().__init__(self._message())

    @property
    def code(self) -> str:
        """Short machine-readable name of the problem, e.g. ``"not_found"``."""
        return str(self.problem.get("code", ""))

    @property
    def detail(self) -> str:
        """The problem in a sentence, as the service words it."""
        return str(self.problem.get("detail") or self.problem.get("title") or "")

    @property
    def fields(self) -> list[tuple[str, str]]:
        """Every offending field with its detail, e.g. ``("/x0", "found ...")``."""
        return [
            (str(entry.get("pointer", "")), str(entry.get("detail", "")))
            for entry in self.problem.get("errors") or []
        ]

    def _message(self) -> str:
        lines = [self.detail or f"the service answered {self.status}"]
        lines += [
            f"  {pointer}: {detail}" if pointer else f"  {detail}"
            for pointer, detail in self.fields
            if detail not in lines[0]
        ]
        return "\n".join(lines)


class InvalidRequest(ProblemError):
    """The request cannot be served as it is; ``fields`` names what must change."""


class Forbidden(ProblemError):
    """The API key is missing, unknown, or lacks the scope."""


class NotFound(ProblemError):
    """Nothing has that name or id."""


class Conflict(ProblemError):
    """The present state of the thing forbids the change."""


class Overloaded(ProblemError):
    """The service is at a limit; ``retry_after`` says when to come back."""


class ServiceFault(ProblemError):
    """The service failed; ``problem["request_id"]`` finds the cause in its log."""


class JobFailed(ClientError):
    """A job ended without a result.

    Args:
        record: The job's record as the service gives it.
    """

    def __init__(self, record: dict[str, Any]) -> None:
        self.record = record
        error = record.get("error") or {}
        reason = error.get("message") or error.get("detail") or "no reason given"
        state = record.get("state")
        text = f"job {record.get('id')} {state}"
        super().__init__(text if state == "cancelled" else f"{text}: {reason}")


_BY_STATUS: dict[int, type[ProblemError]] = {
    400: InvalidRequest,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    412: Conflict,
    413: InvalidRequest,
    415: InvalidRequest,
    422: InvalidRequest,
    428: Conflict,
    429: Overloaded,
    503: Overloaded,
}


def problem_error(
    status: int, problem: dict[str, Any], retry_after: float | None
) -> ProblemError:
    """The narrowest error for an answer of this status."""
    default = ServiceFault if status >= 500 else InvalidRequest
    return _BY_STATUS.get(status, default)(status, problem, retry_after)
