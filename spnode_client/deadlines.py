"""How long a caller waits for one call, all its tries together."""

import time
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

LONGEST_S = 3600.0
"""The most that the service takes for a deadline."""


def timeout_of(given: Any) -> float | None:
    """The ``timeout_s`` of a call in seconds, or None for the client's own.

    Raises:
        ValueError: It is no number of seconds, or out of bounds.
    """
    if given is None:
        return None
    is_number = isinstance(given, (int, float, np.integer, np.floating))
    if not is_number or isinstance(given, bool) or not 0 < given <= LONGEST_S:
        raise ValueError(
            f"timeout_s: found {given!r}; expected seconds, above 0 and at most "
            f"{LONGEST_S:g}, or None for the client's own"
        )
    return float(given)


@dataclass(frozen=True)
class Deadline:
    """When a call is given up.

    Args:
        timeout_s: How long it may take.
        at: ``time.monotonic()`` then.
    """

    timeout_s: float
    at: float

    @classmethod
    def after(cls, timeout_s: float | None) -> Self | None:
        """That of a call that begins now, where it has one of its own.

        Raises:
            ValueError: As for ``timeout_of``.
        """
        seconds = timeout_of(timeout_s)
        return None if seconds is None else cls(seconds, time.monotonic() + seconds)

    def left(self) -> float:
        """Seconds until then; 0 or less where it has passed."""
        return self.at - time.monotonic()
