"""Deadlines of many futures by one timer: most of them never come."""

import asyncio
import time
from typing import Any

from services.errors import DeadlinePassed


class Deadlines:
    """Fails futures whose deadline passes; used from the event loop only."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[Any], float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def add(self, future: asyncio.Future[Any], deadline: float) -> None:
        """Fail a future with ``DeadlinePassed`` at a time of ``time.monotonic()``."""
        self._waiting[future] = deadline
        if self._timer is None or deadline < self._due:
            self._set(deadline)

    def remove(self, future: asyncio.Future[Any]) -> None:
        """Nobody waits for a future any more."""
        self._waiting.pop(future, None)

    def _set(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        after = max(0.0, due - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(after, self._pass)

    def _pass(self) -> None:
        now = time.monotonic()
        self._timer = None
        for future, deadline in list(self._waiting.items()):
            if deadline > now:
                continue
            del self._waiting[future]
            if not future.done():
                future.set_exception(
                    DeadlinePassed("the deadline passed before the rollout ran")
                )
        if self._waiting:
            self._set(min(self._waiting.values()))
