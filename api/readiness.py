"""Whether a gateway should be sent requests: it is warm; the rest is told beside.

Database and queue are the same for every gateway. One that does not answer is no reason
to send callers elsewhere: all gateways would leave at once, and with them the rollouts
that need neither. They must have answered once, since nothing is compiled before.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.errors import ServiceError
from services.queue_names import QUEUES

if TYPE_CHECKING:
    from api.dependencies import Gateway

# Anybody may ask, without a key: what is asked of the database then is bounded.
_HOLDS_S = 1.0
_LOG = logging.getLogger("spnode.api")


@dataclass(frozen=True)
class Found:
    """What was found when it was looked for last."""

    is_ready: bool
    checks: dict[str, str]
    """Of ``database``, ``queue`` and ``models``."""
    workers: dict[str, int]
    """Those that live, by queue."""


class Readiness:
    """Looks at what a gateway needs, at most once a second.

    Args:
        gateway: Whose.
    """

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway
        self._looking = asyncio.Lock()
        self._found: Found | None = None
        self._until = 0.0

    async def found(self) -> Found:
        """What there is now, or was within the last second."""
        async with self._looking:
            if self._found is None or time.monotonic() >= self._until:
                self._found = await self._look()
                self._until = time.monotonic() + _HOLDS_S
            return self._found

    async def _look(self) -> Found:
        gateway = self._gateway
        living, pong = await asyncio.gather(
            gateway.sql(gateway.workers.living),
            gateway.sql(gateway.queue.ping),
            return_exceptions=True,
        )
        checks = {"database": _state(living), "queue": _state(pong)}
        checks["models"] = "warm" if gateway.warmed else "warming"
        workers: dict[str, int] = dict.fromkeys(QUEUES, 0)
        for worker in () if isinstance(living, BaseException) else living:
            for name in worker.queues:
                workers[name] = workers.get(name, 0) + 1
        return Found(gateway.warmed, checks, workers)


def _state(answer: object) -> str:
    """What became of a question."""
    if isinstance(answer, ServiceError):
        # Whoever asks has no key: hosts and users are for the log.
        _LOG.warning("what a gateway needs does not answer: %s", answer)
        return "does not answer"
    if isinstance(answer, BaseException):
        raise answer
    return "ok"
