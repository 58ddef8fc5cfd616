"""Notices computing that stands still, and ends the process so that another begins.

What waits for ever, two threads of a compiled program for each other or a read for its
disk, holds its thread for good, while other threads renew leases and answer probes. No
thread can be ended from outside, so the process ends; who watches it starts another.
"""

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from types import TracebackType

from services.metrics import BUSY

_LOG = logging.getLogger(__name__)
_LONGEST_TICK_S = 5.0
# Of one processor; what only renews leases and answers probes takes less.
_COMPUTES = 0.05
_LONGEST_S = 7200.0


def _end() -> None:
    logging.shutdown()
    os._exit(1)


class Standstill:
    """A context in which threads compute; one that stands still in it ends the process.

    Args:
        limit_s: For how long a thread may be in it while the process computes nothing.
        end: What is called then.
        longest_s: For how long where it does compute: longer than anybody waits.
    """

    def __init__(
        self,
        limit_s: float,
        end: Callable[[], None] = _end,
        *,
        longest_s: float = _LONGEST_S,
    ) -> None:
        self._limit_s = limit_s
        self._share = limit_s / max(longest_s, limit_s) if limit_s < math.inf else 0.0
        self._tick_s = min(limit_s / 10, _LONGEST_TICK_S)
        self._end = end
        self._since: dict[int, float] = {}
        self._idle_s: dict[tuple[int, float], float] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._watch, name="standstill", daemon=True
        )

    def __enter__(self) -> None:
        self._since[threading.get_ident()] = time.monotonic()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._since.pop(threading.get_ident(), None)

    def start(self) -> None:
        """Begin to watch."""
        BUSY.set_function(self.longest)
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._stopping.set()

    def longest(self) -> float:
        """Seconds for which the thread that is in it for longest has been."""
        now = time.monotonic()
        return now - min(self._since.copy().values(), default=now)

    def _watch(self) -> None:
        computed, looked = time.process_time(), time.monotonic()
        while not self._stopping.wait(self._tick_s):
            # While this process is frozen nothing can move.
            passed = min(time.monotonic() - looked, 2 * self._tick_s)
            used = time.process_time() - computed
            computed, looked = time.process_time(), time.monotonic()
            stood = self._stood(passed, computes=used > _COMPUTES * passed)
            if stood > self._limit_s:
                _LOG.critical(
                    "what is computed has stood still for %.0f s: this process ends",
                    stood,
                )
                self._end()

    def _stood(self, passed: float, *, computes: bool) -> float:
        """For how long a thread has stood still, time that computed counting less."""
        share = self._share if computes else 1.0
        self._idle_s = {
            place: self._idle_s.get(place, 0.0) + share * passed
            for place in self._since.copy().items()
        }
        return max(self._idle_s.values(), default=0.0)
