"""When an answer is of no use any more, and what is given up then.

The batcher keeps the deadlines of what it computes. What comes before and after it has
those of this module where it may wait: for a body, for a turn of the threads that read
and write what is large, for the database.
"""

import asyncio
import time
from collections.abc import Awaitable, Mapping
from typing import TypeVar

from services.errors import DeadlinePassed, Invalid
from services.settings import Settings

MAX_TIMEOUT_S = 3600.0
T = TypeVar("T")


class BodyNotInTime(DeadlinePassed):
    """The deadline passed before the body had come.

    What is still to come would be taken for the next request: the answer closes the
    connection.
    """


def deadline_of(settings: Settings, headers: Mapping[str, str]) -> float:
    """A time of ``time.monotonic()``, by ``Request-Timeout`` or the settings.

    Raises:
        Invalid: The header is no number of seconds.
    """
    given = headers.get("request-timeout")
    if given is None:
        return time.monotonic() + settings.rollout_timeout_seconds
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= MAX_TIMEOUT_S:
        raise Invalid(
            "Request-Timeout",
            found=repr(given[:40]),
            expected=f"seconds, above 0 and at most {MAX_TIMEOUT_S:g}",
        )
    return time.monotonic() + seconds


async def in_time(running: Awaitable[T], deadline: float) -> T:
    """Await what may take long, up to a deadline.

    A timer of its own costs some microseconds: nothing for what waits.

    Args:
        running: What is awaited. What a thread has begun goes on there, unheard.
        deadline: ``time.monotonic()`` after which nobody waits for the answer.

    Raises:
        DeadlinePassed: It passed.
    """
    waiting = asyncio.timeout(deadline - time.monotonic())
    try:
        async with waiting:
            return await running
    except TimeoutError:
        if not waiting.expired():
            raise
        said = "the deadline passed before the answer was ready"
        raise DeadlinePassed(said) from None
