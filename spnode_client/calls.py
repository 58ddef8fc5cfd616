"""Requests as values, so that the blocking and the async client share every rule.

An *operation* is a generator: it yields a ``Call`` and is sent its ``Reply`` (or the
``Lost`` connection), yields a ``Pause`` and is resumed after it, and returns its
result. A driver of a few lines runs it on httpx, blocking or not.
"""

import email.utils
import json
import math
import random
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

from spnode_client.deadlines import Deadline
from spnode_client.errors import (
    ClientError,
    DeadlinePassed,
    NotFound,
    ProblemError,
    Unreachable,
    problem_error,
)

T = TypeVar("T")
RETRIED_STATUS = frozenset({429, 502, 503, 504})
FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 10.0
PATIENCE_S = 60.0
"""So long nothing is heard of a job until its waiting ends: a gateway starts anew."""
LONGEST_ASKED_S = 120.0
"""A Retry-After beyond this is the caller's to wait for: ``error.retry_after``."""
_TOO_LATE = "deadline_passed"


@dataclass(frozen=True)
class Call:
    """One HTTP request."""

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | Path | None = None
    """The body; a path is streamed from the file."""
    save_to: Path | None = None
    """Where the body of a good answer is written instead of being kept in memory."""
    timeout_s: float | None = None
    """How long the answer may take, beyond the client's own limit."""
    most_s: float | None = None
    """How long it may take at most, whatever the client's own limit is."""
    is_computed: bool = False
    """Whether the service is told how long the client waits: it computes so long."""
    deadline: Deadline | None = None
    """When it is given up with all its tries, whatever the client's own limit is."""


@dataclass(frozen=True)
class Reply:
    """One HTTP answer."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def is_success(self) -> bool:
        """Whether what was asked is done."""
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.content)


@dataclass(frozen=True)
class Lost:
    """The connection failed before an answer was complete."""

    reason: str


@dataclass(frozen=True)
class Pause:
    """Wait this long."""

    seconds: float


Operation = Generator[Call | Pause, Any, T]
OnBytes = Callable[[int, int | None], None]
"""Told how many bytes of a file are there, and of how many."""


def json_call(method: str, path: str, body: Any, **options: Any) -> Call:
    """A call whose body is JSON; NaN and infinity are refused, as the service does.

    Raises:
        ValueError: Where such a number stands.
    """
    try:
        content = json.dumps(body, allow_nan=False, default=_plain).encode()
    except ValueError as error:
        for place, found in _endless(body):
            said = f"{place}: found {found}; expected a finite number"
            raise ValueError(said) from error
        raise
    headers = {"content-type": "application/json", **options.pop("headers", {})}
    return Call(method, path, content=content, headers=headers, **options)


def once(call: Call) -> Call:
    """The call with an Idempotency-Key, so that a retry never does the work twice."""
    headers = {**call.headers, "idempotency-key": f'"{uuid.uuid4()}"'}
    return Call(**{**call.__dict__, "headers": headers})


def perform(
    call: Call,
    retries: int,
    *,
    is_repeatable: bool = True,
    until: float | None = None,
) -> Operation[Reply]:
    """Make the call, again on 429, 502-504 and lost connections, with jitter.

    Args:
        call: What is asked.
        retries: How often more it may be asked.
        is_repeatable: Asked twice it is done once, or the same. Else it is asked again
            on 429 alone, where it was not done.
        until: ``time.monotonic()`` from which on it is not asked again.

    Raises:
        DeadlinePassed: The call's deadline came, or comes before another try.
        Unreachable: No answer came at any try.
        ProblemError: The service refused.
    """
    if call.deadline is not None:
        until = call.deadline.at
    outcome: Reply | Lost = yield call
    is_doubtful = is_over = False
    for number in range(retries):
        if not _is_retried(outcome, is_repeatable, number):
            break
        delay = retry_delay(number, outcome)
        if until is not None and time.monotonic() + delay >= until:
            is_over = True
            break
        is_doubtful |= isinstance(outcome, Lost) or outcome.status >= 500
        yield Pause(delay)
        outcome = yield call
    if not isinstance(outcome, Lost) and outcome.is_success:
        return outcome
    error = _error(outcome, is_doubtful)
    if call.deadline is not None and (is_over or _is_late(call.deadline, error)):
        said = f"no good answer within {call.deadline.timeout_s:g} s: {error}"
        raise DeadlinePassed(said) from error
    raise error


def delete(call: Call, retries: int) -> Operation[None]:
    """Make the call; that there is nothing may be the doing of an earlier try.

    Raises:
        NotFound: There was nothing from the beginning.
    """
    try:
        yield from perform(call, retries)
    except NotFound as error:
        if not error.is_doubtful:
            raise


def retry_delay(number: int, outcome: Reply | Lost) -> float:
    """Seconds before the next try: doubling, jittered, never below Retry-After."""
    delay = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2**number)
    asked = retry_after(outcome.headers) if isinstance(outcome, Reply) else None
    return (asked or 0.0) + delay * random.uniform(0.5, 1.0)


def broken(error: Exception) -> Lost:
    """What broke a stream, where another try may help.

    Args:
        error: What reading it raised; raised again where no other try helps.
    """
    if isinstance(error, ProblemError) and error.status not in RETRIED_STATUS:
        raise error
    return Lost(str(error))


def is_passing(error: Exception) -> bool:
    """Whether a gateway that starts anew, or has too much to do, may be behind it."""
    status = error.status if isinstance(error, ProblemError) else None
    return isinstance(error, Unreachable) or status in RETRIED_STATUS


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header, which holds a number or a date."""
    text = headers.get("retry-after")
    if not text:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - time.time())


def _is_retried(outcome: Reply | Lost, is_repeatable: bool, number: int) -> bool:
    if isinstance(outcome, Lost):
        return is_repeatable
    if (retry_after(outcome.headers) or 0.0) > LONGEST_ASKED_S:
        return False
    if outcome.status == HTTPStatus.GATEWAY_TIMEOUT:
        # Once more, since a model that was loaded meanwhile is ready then; where that
        # was not enough the next try's time is none either.
        is_repeatable &= number == 0 or refusal(outcome).code != _TOO_LATE
    retried = RETRIED_STATUS if is_repeatable else {HTTPStatus.TOO_MANY_REQUESTS}
    return outcome.status in retried


def _error(outcome: Reply | Lost, is_doubtful: bool) -> ClientError:
    if isinstance(outcome, Lost):
        return Unreachable(outcome.reason)
    error = refusal(outcome)
    error.is_doubtful = is_doubtful
    return error


def _is_late(deadline: Deadline, error: ClientError) -> bool:
    """Whether it is the deadline that an error is about."""
    if isinstance(error, Unreachable):
        return deadline.left() <= 0
    return isinstance(error, ProblemError) and error.code == _TOO_LATE


def refusal(reply: Reply) -> ProblemError:
    """The error that a refused request becomes."""
    try:
        problem = reply.json()
    except ValueError:
        problem = {}
        if place := reply.headers.get("location"):
            problem["detail"] = (
                f"the answer {reply.status} leads to {place}; give the client the "
                "address of the service itself"
            )
    if not isinstance(problem, dict):
        problem = {"detail": str(problem)}
    return problem_error(reply.status, problem, retry_after(reply.headers))


def _endless(value: Any, place: str = "") -> Iterator[tuple[str, float]]:
    """Numbers that JSON has no word for, and their places."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _endless(each, f"{place}.{name}" if place else str(name))
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from _endless(each, f"{place}[{number}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield place, value


def _plain(value: Any) -> Any:
    """Numpy scalars and arrays as JSON sees them."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} does not fit into a JSON body: {value!r}")
