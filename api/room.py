"""Bytes, or turns, that callers have of those that there are, and each one's share."""

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class Full:
    """Why there is no room: whose bytes they are, how many, and of how many."""

    is_callers: bool
    taken: int
    limit: int


class Room:
    """So many bytes (or turns), of which one caller has half, or the largest piece.

    Args:
        limit: How many there are; for the largest piece there is room.
        largest: How many one piece may have.
    """

    def __init__(self, limit: int, largest: int) -> None:
        self._limit = max(limit, largest)
        self._share = max(self._limit // 2, largest)
        self._taken_by: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """Bytes that are taken."""
        return sum(self._taken_by.values())

    def full_for(self, caller: str, size: int) -> Full | None:
        """Why a caller cannot have so many more; None where it can."""
        mine = self._taken_by.get(caller, 0)
        if mine + size > self._share:
            return Full(True, mine, self._share)
        if self.taken + size > self._limit:
            return Full(False, self.taken, self._limit)
        return None

    def take(self, caller: str, size: int) -> None:
        """Count bytes that a caller has."""
        self._taken_by[caller] += size

    def give_back(self, caller: str, size: int) -> None:
        """Count them no more."""
        self._taken_by[caller] -= size
        self._taken_by += Counter()  # those that hold nothing go
