"""Leases that nobody renews, found without a clock that others can set."""

import math
from collections.abc import Mapping
from datetime import datetime

from services.database.clock import Clock


class LeaseWatch:
    """Looks again and again at the ends of the leases of running jobs.

    Args:
        longest_s: A lease that had one end for longer than this is silent.
        monotonic: Seconds that never go back.
    """

    def __init__(self, longest_s: float, monotonic: Clock) -> None:
        self._longest_s = longest_s
        self._monotonic = monotonic
        # Ends, and for how long they have been seen to be so.
        self._seen: dict[str, tuple[datetime, float]] = {}
        self._looked: float | None = None

    def silent(self, ends: Mapping[str, datetime]) -> set[str]:
        """Which of the running jobs nobody has renewed, by the ends of their leases.

        A time in which this process could not look, since the database was away, say,
        counts for a quarter of the longest at most: nobody could renew either.
        """
        now, before = self._monotonic(), self._seen
        looked = now if self._looked is None else self._looked
        passed, self._looked = min(now - looked, self._longest_s / 4), now
        self._seen = {
            id: (end, before[id][1] + passed)
            if id in before and before[id][0] == end
            else (end, 0.0)
            for id, end in ends.items()
        }
        return {id for id, (_, s) in self._seen.items() if s > self._longest_s}


class Absences:
    """Notices that nobody could renew a lease for a while, as far as can be seen here.

    The database did not answer, or the machine of all of them slept, and its own clock
    ran ahead meanwhile. Every lease has ended then, also those of workers that live:
    they get the time of a lease to renew theirs.

    Args:
        lease_s: How long a lease lasts.
        monotonic: Seconds that never go back, and stand still in a sleep.
    """

    def __init__(self, lease_s: float, monotonic: Clock) -> None:
        self._lease_s = lease_s
        self._monotonic = monotonic
        self._seen: tuple[float, float] | None = None
        self._until = -math.inf

    def begin(self) -> None:
        """Take what was before for one: this process has not seen it."""
        self._until = self._monotonic() + self._lease_s

    def is_recent(self, wall: float | None) -> bool:
        """Whether one ended less than a lease ago; asked whenever the database answers.

        Workers renew twice in a lease at least, and are asked as often: half of one
        counts as a sleep, three quarters without an answer as an absence.

        Args:
            wall: Seconds by the clock that all of them share, where it is this
                machine's own.
        """
        now = self._monotonic()
        ahead = 0.0 if wall is None else wall - now
        before, ahead_before = self._seen or (now, ahead)
        self._seen = (now, ahead)
        has_slept = ahead - ahead_before > self._lease_s / 2
        if has_slept or now - before > 0.75 * self._lease_s:
            self._until = now + self._lease_s
        return now < self._until
