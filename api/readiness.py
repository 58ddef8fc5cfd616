"""Whether a gateway should be sent requests: it is warm; the rest is told beside.

Database and queue are the same for every gateway. One that does not answer is no reason
to send callers elsewhere: all gateways would leave at once, and none would do better.
They must have answered once, since nothing is compiled before.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.queue_names import QUEUES
from services.workers import Worker

if TYPE_CHECKING:
    from api.dependencies import Gateway

# Anybody may ask, without a key: what is asked of the database then is bounded.
_HOLDS_S = 1.0
# Whoever probes waits no longer than a second, a server that hangs for a minute.
_PATIENCE_S = 0.5
_OK, _SILENT, _FULL = "ok", "does not answer", "has no room"
_LOG = logging.getLogger("spnode.api")


@dataclass(frozen=True)
class Found:
    """What was found when it was looked for last."""

    is_ready: bool
    checks: dict[str, str]
    """Of ``database``, ``queue`` and ``models``."""
    workers: dict[str, int]
    """Those that live, by queue."""

    def is_well(self, name: str) -> bool:
        """Whether the database or the queue is."""
        return self.checks[name] == _OK

    def answers(self, name: str) -> bool:
        """Whether it did, be it that it takes nothing more."""
        return self.checks[name] != _SILENT


class Readiness:
    """Looks at what a gateway needs, at most once a second, and waits for none of it.

    Args:
        gateway: Whose.
    """

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway
        # Of its own: a look waits behind no request, and none behind it.
        self._threads = ThreadPoolExecutor(2, "looks")
        self._database = _Look("database", self._living, self._threads)
        self._has_room = True
        self._queue = _Look("queue", gateway.queue.ping, self._threads)

    async def found(self) -> Found:
        """What there is now, or was within the last second."""
        (database, living), (queue, _) = await asyncio.gather(
            self._database.state(), self._queue.state()
        )
        if database == _OK and not self._has_room:
            database = _FULL
        workers: dict[str, int] = dict.fromkeys(QUEUES, 0)
        for worker in living or ():
            for name in worker.queues:
                workers[name] = workers.get(name, 0) + 1
        models = "warm" if self._gateway.warmed else "warming"
        if unserved := self._gateway.unserved:
            models += f", {unserved} cannot be served"
        checks = {"database": database, "queue": queue, "models": models}
        return Found(self._gateway.warmed, checks, workers)

    def _living(self) -> list[Worker]:
        """The workers that live; beside it is seen whether more can be written."""
        living = self._gateway.workers.living()
        has_room = self._gateway.database.has_room()
        if has_room != self._has_room:
            _LOG.warning(
                "the database %s room on its disk", "has" if has_room else "has no"
            )
        self._has_room = has_room
        return living

    def close(self) -> None:
        """Look no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)


@dataclass
class _Look:
    """A question that is asked again and again, never twice at a time."""

    name: str
    ask: Callable[[], Any]
    threads: Executor
    asking: asyncio.Future[Any] | None = None
    asked_at: float = 0.0
    said: str = _OK
    reason: str = ""

    async def state(self) -> tuple[str, Any]:
        """What became of it, and the answer where there is one."""
        now = time.monotonic()
        is_due = now - self.asked_at >= _HOLDS_S
        if self.asking is None or (self.asking.done() and is_due):
            loop = asyncio.get_running_loop()
            self.asking = loop.run_in_executor(self.threads, self.ask)
            self.asking.add_done_callback(self._told)
            self.asked_at = now
        asking = self.asking
        done, _ = await asyncio.wait({asking}, timeout=_PATIENCE_S)
        if not done:
            return self._say(_SILENT, f"nothing in {_PATIENCE_S:g} s"), None
        if asking.cancelled() or asking.exception() is not None:
            return _SILENT, None
        return self._say(_OK, "it answers"), asking.result()

    def _told(self, asking: asyncio.Future[Any]) -> None:
        """Log what went wrong, also where nobody waits for it any more."""
        if asking.cancelled() or (error := asking.exception()) is None:
            return
        reason = str(error) or type(error).__name__
        self._say(_SILENT, reason, is_news=reason != self.reason)
        self.reason = reason

    def _say(self, state: str, why: str, *, is_news: bool = False) -> str:
        """Log what has changed: hosts and users are not for who asks without a key."""
        if is_news or state != self.said:
            _LOG.warning("the %s: %s: %s", self.name, state, why)
        self.said = state
        return state
