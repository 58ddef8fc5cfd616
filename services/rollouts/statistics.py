"""What was computed of each version since the process began: counts and durations.

For whoever compares versions or looks for a slow one. Counted where batches are made,
so every door is in it; of the versions that were asked for last.
"""

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from types import TracebackType

_KEPT = 500


@dataclass(slots=True)
class Durations:
    """How often something happened, and how long all of it took together."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """It happened once more."""
        self.count += 1
        self.seconds += seconds


@dataclass(slots=True)
class Tally:
    """What was computed of one artifact."""

    rows: int = 0
    """Rows of requests that were computed."""
    last: float = 0.0
    """Seconds since 1970 at which the last request came."""
    computed: Durations = field(default_factory=Durations)
    """Requests, from coming to having their results."""
    failed: Durations = field(default_factory=Durations)
    """Requests that were refused, came too late, or could not be computed."""
    waited: Durations = field(default_factory=Durations)
    """Requests, from coming to their first batch."""
    batches: dict[int, Durations] = field(default_factory=dict)
    """Batches that were computed, by their number of rows: the time in the executor,
    with loading and compiling where a batch had to wait for that."""

    def batch(self, rows: int, seconds: float) -> None:
        """A batch was computed."""
        self.batches.setdefault(rows, Durations()).add(seconds)


class Statistics:
    """Tallies by digest of the artifact."""

    def __init__(self) -> None:
        self._tallies: OrderedDict[str, Tally] = OrderedDict()

    def of(self, digest: str) -> Tally:
        """The tally of a version, which begins with its first request."""
        tally = self._tallies.get(digest)
        if tally is None:
            tally = self._tallies[digest] = Tally()
            if len(self._tallies) > _KEPT:
                self._tallies.popitem(last=False)
        else:
            self._tallies.move_to_end(digest)
        return tally

    def known(self) -> dict[str, Tally]:
        """All tallies, by digest."""
        return dict(self._tallies)


class Counted:
    """A request for rows while it is computed; counted when it ends.

    One that its caller gave up counts neither as computed nor as failed.

    Args:
        tally: Of its version.
        rows: How many it asks for.
    """

    def __init__(self, tally: Tally, rows: int) -> None:
        self._tally = tally
        self._rows = rows
        self._began = 0.0

    def __enter__(self) -> None:
        """It has come."""
        self._began = time.monotonic()
        self._tally.last = time.time()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """It has its results, or none."""
        took = time.monotonic() - self._began
        if kind is None:
            self._tally.rows += self._rows
            self._tally.computed.add(took)
        elif issubclass(kind, Exception):
            self._tally.failed.add(took)
