"""Progress of a run of many rows: one line at a terminal, a line now and then else."""

import sys
import time

from benchmarks.paper.rows import Record, Row
from spnode_core import Progress

_PLAIN_EVERY_S = 20.0


class Meter:
    """Says which row is measured, how far it is and how much time is left.

    Args:
        rows: The rows to measure.
        name: Of their example.
    """

    def __init__(self, rows: list[Row], name: str) -> None:
        self._rows, self._name = rows, name
        self._index = -1
        self._began = self._spoken = time.monotonic()
        self._done_s = self._done_cost = 0.0
        self._is_terminal = sys.stderr.isatty()

    def begin(self, row: Row) -> None:
        """A row is about to be measured."""
        self._index = self._rows.index(row)
        self._began = time.monotonic()
        self._spoken = self._began
        self._write(f"{self._place()} {row.name}", is_last=not self._is_terminal)

    def tell(self, progress: Progress) -> None:
        """Show how far the row is."""
        now = time.monotonic()
        if not self._is_terminal and now - self._spoken < _PLAIN_EVERY_S:
            return
        self._spoken = now
        parts = [f"{self._place()} {self._rows[self._index].name}"]
        parts.append(progress.message or progress.stage)
        if progress.validation_loss is not None:
            parts.append(f"loss {progress.validation_loss:.2e}")
        if progress.remaining_s is not None:
            parts.append(f"row {duration(progress.remaining_s)} left")
        left = self._left()
        if left is not None:
            parts.append(f"all about {duration(left)} left")
        self._write(" · ".join(parts), is_last=not self._is_terminal)

    def end(self, row: Row, record: Record) -> None:
        """A row was measured and stored."""
        self._done_s += record.seconds
        self._done_cost += row.cost
        took = duration(record.seconds)
        self._write(f"{self._place()} {row.name}: done in {took}", is_last=True)

    def _place(self) -> str:
        return f"{self._name} [{self._index + 1}/{len(self._rows)}]"

    def _left(self) -> float | None:
        """Time for the rows that are left, by those that are done."""
        if not self._done_cost:
            return None
        cost = sum(row.cost for row in self._rows[self._index :])
        elapsed = time.monotonic() - self._began
        return max(0.0, cost * self._done_s / self._done_cost - elapsed)

    def _write(self, line: str, *, is_last: bool) -> None:
        start = "\r\x1b[K" if self._is_terminal else ""
        sys.stderr.write(start + line + ("\n" if is_last else ""))
        sys.stderr.flush()


def duration(seconds: float) -> str:
    """A time as a person says it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"
