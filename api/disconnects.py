"""Who waits for a rollout: given up when the caller goes away.

Most calls are over before it is worth asking whether the caller is still there, so one
timer serves all, and only the calls that have taken a while are watched.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

T = TypeVar("T")

_WATCH_AFTER_S = 0.1


@dataclass(eq=False, slots=True)
class _Call:
    task: asyncio.Task
    receive: Receive
    began: float
    watching: asyncio.Task[None] | None = None
    is_gone: bool = False

    async def watch(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.is_gone = True
        self.task.cancel()


class Disconnects:
    """The calls that run now."""

    def __init__(self) -> None:
        # In the order in which they began.
        self._young: dict[_Call, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def watched(self, running: Awaitable[T], receive: Receive) -> T:
        """Await something, and give it up when the caller goes away.

        Args:
            running: What is awaited; it is cancelled.
            receive: Of the request, whose body has been read.

        Raises:
            ClientDisconnect: The caller has gone.
        """
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        call = _Call(task, receive, loop.time())
        self._young[call] = None
        if self._timer is None:
            self._timer = loop.call_later(_WATCH_AFTER_S, self._grow)
        try:
            return await running
        except asyncio.CancelledError:
            if not call.is_gone:
                raise
            task.uncancel()
            raise ClientDisconnect from None
        finally:
            self._young.pop(call, None)
            if call.watching is not None:
                call.watching.cancel()

    def _grow(self) -> None:
        """Watch what is no longer young."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for call in list(self._young):
            if now - call.began < _WATCH_AFTER_S:
                break
            del self._young[call]
            call.watching = loop.create_task(call.watch())
        self._timer = None
        if self._young:
            self._timer = loop.call_later(_WATCH_AFTER_S, self._grow)
