"""Who sends a body too slowly: given up when its time is over.

Most bodies are there already, so one timer serves all that are waited for, as in
``api.disconnects``: a timer for each costs a rollout some twenty microseconds.
"""

import asyncio
from dataclasses import dataclass

from starlette.types import Message, Receive

_LOOK_EVERY_S = 0.25


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
