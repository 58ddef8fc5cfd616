"""Who sends a body too slowly: given up when its time is over.

Most bodies are there already, so one timer serves all that are waited for, as in
``api.disconnects``: a timer for each costs a rollout some twenty microseconds.
"""

import asyncio
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

_LOOK_EVERY_S = 0.25
LEAST_RATE = 16 * 1024
"""Bytes a second of a body that comes slowly."""


class BodyTooSlow(HTTPException):
    """The body did not come in time.

    An ``HTTPException``, since FastAPI turns every other exception of ``receive`` into
    a 400.
    """

    def __init__(self, received: int, seconds: float) -> None:
        found = f"found {received} bytes of the body in {seconds:.0f} s"
        least = f"{LEAST_RATE // 1024} KiB more each second"
        super().__init__(
            408,
            f"{found}; expected it whole, or {least}",
            # What is still to come would be taken for the next request.
            {"Connection": "close"},
        )


@dataclass(eq=False, slots=True)
class _Wait:
    task: asyncio.Task
    end: float
    is_over: bool = False


class SlowBodies:
    """The parts of bodies that are waited for now."""

    def __init__(self) -> None:
        self._waits: set[_Wait] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, receive: Receive, seconds: float) -> Message:
        """The next part of a body.

        Args:
            receive: ASGI's.
            seconds: For how long it is waited for, about.

        Raises:
            TimeoutError: It did not come.
        """
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        wait = _Wait(task, loop.time() + seconds)
        self._waits.add(wait)
        if self._timer is None:
            self._timer = loop.call_later(_LOOK_EVERY_S, self._look)
        try:
            return await receive()
        except asyncio.CancelledError:
            if not wait.is_over:
                raise
            task.uncancel()
            raise TimeoutError from None
        finally:
            self._waits.discard(wait)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for wait in self._waits:
            if wait.end <= now and not wait.is_over:
                wait.is_over = True
                wait.task.cancel()
        self._timer = None
        if self._waits:
            self._timer = loop.call_later(_LOOK_EVERY_S, self._look)
