"""What may wait: rows and bytes that are queued, and when to come back otherwise.

Rows leave the count when they are computed, bytes when their request is answered: until
then its inputs and the part of its answer that is there lie in memory.
"""

import math
import time
from collections.abc import Callable
from typing import NoReturn

from services.errors import Overloaded

# Rates are means over about this much busy time.
_MEMORY_S = 10.0
# What Retry-After may say: less makes callers knock, more makes them give up.
_SOONEST_S, _LATEST_S = 0.1, 60.0
_UNKNOWN_S = 1.0
# Reading and parsing what is refused afterwards costs a gateway that is overloaded more
# than computing: from here on nobody is taken whose size is not known.
_NEARLY_FULL = 0.9


class DrainRate:
    """Rows and bytes a second that leave while there is work: a decaying mean.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._busy_since: float | None = None
        self._seconds = 0.0
        self._rows = 0.0
        self._bytes = 0.0

    def busy(self) -> None:
        """There is work from now on."""
        if self._busy_since is None:
            self._busy_since = self._clock()

    def idle(self) -> None:
        """There is none: this time does not count."""
        self._busy_since = None

    def left(self, rows: int, size_bytes: float) -> None:
        """Rows were computed just now."""
        now = self._clock()
        passed = now - (now if self._busy_since is None else self._busy_since)
        kept = math.exp(-passed / _MEMORY_S)
        self._seconds = self._seconds * kept + passed
        self._rows = self._rows * kept + rows
        self._bytes = self._bytes * kept + size_bytes
        self._busy_since = now

    def seconds_for(self, rows: float, size_bytes: float) -> float:
        """How long so many rows and so many bytes take to leave, by what was seen."""
        if not self._seconds or not self._rows:
            return _UNKNOWN_S
        by_rows = rows * self._seconds / self._rows
        by_bytes = size_bytes * self._seconds / self._bytes if self._bytes else 0.0
        return min(max(by_rows, by_bytes, _SOONEST_S), _LATEST_S)


class Admission:
    """Counts what is queued and refuses what would be too much.

    A request is taken whatever its size when nothing else is queued: limits of single
    requests are checked before.

    Args:
        rows_limit: Rows that may wait or be computed.
        bytes_limit: Bytes of inputs and expected outputs of the same requests.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        rows_limit: int,
        bytes_limit: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rows_limit = rows_limit
        self.bytes_limit = bytes_limit
        self.rows = 0
        self.size_bytes = 0
        self.rate = DrainRate(clock)

    def check_open(self) -> None:
        """Refuse a request before it is read, where nine tenths of the room are taken.

        Raises:
            Overloaded: With when to come back.
        """
        rows = self.rows - _NEARLY_FULL * self.rows_limit
        size_bytes = self.size_bytes - _NEARLY_FULL * self.bytes_limit
        if self.size_bytes and (rows >= 0 or size_bytes >= 0):
            self._refuse(max(rows, 0), max(size_bytes, 0))

    def admit(self, rows: int, size_bytes: int) -> None:
        """Count a request in.

        Raises:
            Overloaded: It would be too much, with when to come back.
        """
        more_rows = self.rows + rows - self.rows_limit
        more_bytes = self.size_bytes + size_bytes - self.bytes_limit
        if self.size_bytes and (more_rows > 0 or more_bytes > 0):
            self._refuse(max(more_rows, 0), max(more_bytes, 0))
        self.rows += rows
        self.size_bytes += size_bytes
        self.rate.busy()

    def _refuse(self, rows: float, size_bytes: float) -> NoReturn:
        raise Overloaded(
            f"{self.rows} rows and {self.size_bytes} bytes are queued already, "
            f"at most {self.rows_limit} and {self.bytes_limit} may be",
            retry_after_s=self.rate.seconds_for(rows, size_bytes),
        )

    def computed(self, rows: int, size_bytes: float) -> None:
        """Count rows out that have their results; their bytes stay for now."""
        self.rows -= rows
        self.rate.left(rows, size_bytes)

    def leave(self, rows: int, size_bytes: int) -> None:
        """Count a request out: its rows that were not computed, and all its bytes."""
        self.rows -= rows
        self.size_bytes -= size_bytes
        if not self.size_bytes:
            self.rate.idle()
