"""The clock that all processes of a deployment share: the database server's.

Hosts share a database and not a clock, so leases, ages and due times are told by the
server's time. It is asked now and then; between two answers ``time.monotonic`` goes on
from the last one, so that a step of this machine's own clock changes nothing.

::

    this process   asked_at ──────▶ ◀────── answered_at
    server                     time

The server read its clock at some moment between the two; the middle is taken, which is
wrong by half of the round trip at most.
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

ASK_AGAIN_S = 30.0
"""After which time the server is asked again: by then clocks drift by milliseconds."""
_GOOD_ROUND_TRIP_S = 0.2
_TRIES = 3
_STEP_S = 1.0

Clock = Callable[[], float]
"""Gives seconds since 1970."""


@dataclass(frozen=True)
class Reading:
    """What a server's clock said, by this process's monotonic clock.

    Args:
        seconds: Since 1970.
        asked_at: When the question left.
        answered_at: When the answer was here.
    """

    seconds: float
    asked_at: float
    answered_at: float

    @property
    def round_trip_s(self) -> float:
        """How long it took; half of it is the error."""
        return self.answered_at - self.asked_at

    def at(self, moment: float) -> float:
        """The server's time at a moment of the monotonic clock."""
        return self.seconds + moment - (self.asked_at + self.answered_at) / 2


class ServerClock:
    """Seconds since 1970 by a database server; any thread may call it.

    Args:
        read: Asks the server.
        again_s: After which time it is asked again.
        monotonic: Seconds that never go back.
        own: This machine's clock. Where it has moved otherwise than ``monotonic``, one
            of them was stepped, or the machine slept: the server is asked again, and
            nothing else follows from it.
    """

    def __init__(
        self,
        read: Callable[[], Reading],
        *,
        again_s: float = ASK_AGAIN_S,
        monotonic: Clock = time.monotonic,
        own: Clock = time.time,
    ) -> None:
        self._read = read
        self._again_s = again_s
        self._monotonic = monotonic
        self._own = own
        # Replaced as a whole, by the one thread that asks.
        self._known: tuple[Reading, float] | None = None
        self._asking = threading.Lock()

    def __call__(self) -> float:
        """Return the server's time.

        Raises:
            Unavailable: The server was to be asked and does not answer.
        """
        known = self._told(no_older_than_s=self._again_s)
        if known is not None:
            return known
        # One thread asks. Meanwhile others go by what was said before, if they can.
        before = self._told(no_older_than_s=math.inf)
        if not self._asking.acquire(blocking=before is None):
            assert before is not None
            return before
        try:
            known = self._told(no_older_than_s=self._again_s)
            if known is not None:  # another has asked while this one waited
                return known
            reading = self._asked()
            now = self._monotonic()
            self._known = reading, self._own() - now
            return reading.at(now)
        finally:
            self._asking.release()

    def _told(self, *, no_older_than_s: float) -> float | None:
        """The time by the last answer; None where that does not do any more."""
        now, known = self._monotonic(), self._known
        if known is None:
            return None
        reading, ahead = known
        if now - reading.answered_at >= no_older_than_s:
            return None
        if abs(self._own() - now - ahead) >= _STEP_S:
            return None
        return reading.at(now)

    def _asked(self) -> Reading:
        """The best of some readings: an answer that is late says little."""
        best = self._read()
        for _ in range(_TRIES - 1):
            if best.round_trip_s <= _GOOD_ROUND_TRIP_S:
                break
            best = min(best, self._read(), key=lambda each: each.round_trip_s)
        return best
