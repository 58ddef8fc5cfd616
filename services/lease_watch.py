"""Leases that nobody renews, found without a clock that others can set."""

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
        # Ends, and since when they are seen to be so.
        self._seen: dict[str, tuple[datetime, float]] = {}

    def silent(self, ends: Mapping[str, datetime]) -> set[str]:
        """Which of the running jobs nobody has renewed, by the ends of their leases."""
        now, before = self._monotonic(), self._seen
        self._seen = {
            id: before[id] if id in before and before[id][0] == end else (end, now)
            for id, end in ends.items()
        }
        seen = self._seen.items()
        return {id for id, (_, since) in seen if now - since > self._longest_s}
