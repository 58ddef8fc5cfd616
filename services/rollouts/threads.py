"""Threads that compute: one that is called, and several for the pieces of a batch."""

import asyncio
import contextlib
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from services.rollouts.standstill import Standstill

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
_IDLE_AGAIN_S = 0.2


def on_threads(one: Callable[[int], T], count: int, at_a_time: int) -> list[T]:
    """``[one(0), ..., one(count - 1)]``, several of them at a time.

    After the first error no more are begun; it is raised when none runs any more.

    Args:
        one: Computes one.
        count: How many there are.
        at_a_time: How many threads compute, the caller's among them.
    """
    waiting = deque(range(count))
    found: dict[int, T] = {}
    errors: list[Exception] = []

    def work() -> None:
        while not errors:
            try:
                number = waiting.popleft()
            except IndexError:
                return
            try:
                found[number] = one(number)
            except Exception as error:  # raised in the caller's thread
                errors.append(error)

    # Whoever ends the process waits for none of them.
    threads = [
        threading.Thread(target=work, name="tiles", daemon=True)
        for _ in range(min(at_a_time, count) - 1)
    ]
    for thread in threads:
        thread.start()
    work()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [found[number] for number in range(count)]


class CallingThread:
    """Calls functions one after the other, for coroutines that wait.

    SimpleQueue and call_soon_threadsafe: 11 us there and back, against 25 us for
    run_in_executor.

    Args:
        name: Of the thread.
        standstill: Watches what it calls.
        idle: Called while nothing waits, until it returns False; then now and again.
    """

    def __init__(
        self,
        name: str,
        standstill: Standstill,
        idle: Callable[[], bool] | None = None,
    ) -> None:
        self._standstill, self._idle = standstill, idle
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        # Calls that have not ended; changed on the event loop alone.
        self.given = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def call(self, function: Callable[[], T]) -> T:
        """Call a function in the thread."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self.given += 1
        self._calls.put(_Call(function, loop, future))
        return await future

    def _settle(
        self,
        how: Callable[[asyncio.Future[Any], Any], None],
        future: asyncio.Future[Any],
        value: Any,
    ) -> None:
        self.given -= 1
        if not future.done():
            how(future, value)

    async def close(self) -> None:
        """End the thread after what it has been given."""
        self._calls.put(None)
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, 30)

    def _serve(self) -> None:
        while (call := self._next()) is not None:
            how, value = asyncio.Future.set_result, None
            try:
                if not call.future.cancelled():
                    with self._standstill:
                        value = call.function()
            except Exception as error:  # the boundary of the thread
                how, value = asyncio.Future.set_exception, error
            # A loop that is closed has nobody left who waits.
            if not call.loop.is_closed():
                call.loop.call_soon_threadsafe(self._settle, how, call.future, value)
            # Its arrays and its answer are nobody's here, until the next one comes.
            call = value = None

    def _next(self) -> "_Call | None":
        """The next call; what can be done meanwhile is done while none waits."""
        if self._idle is None:
            return self._calls.get()
        while True:
            while self._calls.empty() and self._has_idled():
                pass
            # What could not be done now may be possible later.
            with contextlib.suppress(queue.Empty):
                return self._calls.get(timeout=_IDLE_AGAIN_S)

    def _has_idled(self) -> bool:
        assert self._idle is not None
        try:
            with self._standstill:
                return self._idle()
        except Exception:  # the boundary of the thread
            _LOG.exception("a shape could not be prepared")
            return True


@dataclass(frozen=True)
class _Call:
    function: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
