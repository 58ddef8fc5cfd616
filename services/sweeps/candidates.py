"""What a sweep knows of its candidates while they train, and at its end."""

from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from services.database.candidate_rows import (
    counts_of,
    lock_waiting,
    rows_of,
    waiting,
    write_progress,
)
from services.database.clock import Clock
from services.database.engine import Database
from services.database.registry_rows import promote
from services.database.tables import instant
from services.lifecycle import TERMINAL, Job, add_event
from services.sweeps.request import PlannedSweep


@dataclass(frozen=True)
class Outcome:
    """What became of a candidate."""

    job: str
    settings: dict[str, Any]
    """What it has beside the base, by field."""
    state: str
    version: int | None = None
    digest: str | None = None
    seconds: float | None = None
    """From when it began, or began anew at a retry, to its end."""
    error: dict[str, Any] | None = None
    """Why there is no version of it."""

    def record(self) -> dict[str, Any]:
        """The outcome as JSON."""
        return asdict(self)


class Candidates:
    """The candidates of sweeps.

    Args:
        database: Where the rows are.
        clock: Seconds since 1970; the database's by default.
    """

    def __init__(self, database: Database, *, clock: Clock | None = None) -> None:
        self.database = database
        self.clock = clock or database.clock

    def note(self, sweep: str, *, skips: bool = False) -> None:
        """Write to a sweep that waits how many of its candidates have ended.

        Nothing is written where a worker has it, or where nothing is new; with
        ``skips`` also where another writes to it just now.
        """
        with self.database.transaction() as connection:
            row = lock_waiting(connection, sweep, skips=skips)
            if row is None:
                return
            progress = _progress(connection, sweep)
            if progress is None or progress == row["progress"]:
                return
            write_progress(connection, sweep, progress)
            total = progress["candidates"]
            message = f"{progress['succeeded']} of {total} candidates trained"
            for state in ("failed", "cancelled"):
                message += f", {progress[state]} {state}" if progress[state] else ""
            now = instant(self.clock())
            add_event(connection, sweep, "log", message, now, progress)

    def note_all(self) -> None:
        """Note for every sweep that waits what nobody has noted.

        Such are candidates that ended without a worker: cancelled, late, given up. Who
        has the row of a sweep may be cut off: it is left for the next round.
        """
        with self.database.reading() as connection:
            news = [
                sweep
                for sweep, noted in waiting(connection).items()
                if _progress(connection, sweep) not in (None, noted)
            ]
        for sweep in news:
            self.note(sweep, skips=True)

    def outcomes(self, sweep: Job) -> list[Outcome]:
        """Return what became of each candidate, in the order of the request."""
        with self.database.reading() as connection:
            rows = rows_of(connection, sweep.id)
        planned = PlannedSweep.model_validate(sweep.request)
        return [
            _outcome(rows[each.job], each.settings)
            for each in planned.candidates
            if each.job is not None
        ]

    def promote(
        self, connection: sa.Connection, sweep: Job, number: int, reason: str
    ) -> list[str]:
        """Give a version the sweep's aliases, in the transaction that ends it.

        Returns:
            The aliases that moved: the sweep's own, and ``champion`` where the model
            has none; that one through its gates alone.

        Raises:
            NotFound: The version was deleted.
        """
        request, now = sweep.request, instant(self.clock())
        alias, owner = request.get("alias"), sweep.owner
        return promote(connection, request["model"], number, alias, now, owner, reason)


def _progress(connection: sa.Connection, sweep: str) -> dict[str, Any] | None:
    """How many candidates have ended, and how; None where none has."""
    counts = counts_of(connection, sweep)
    ended = {state: counts[state] for state in sorted(TERMINAL)}
    total, done = counts.total(), sum(ended.values())
    if not done:
        return None
    fraction = done / max(total, 1)
    return {"stage": "candidates", "candidates": total, **ended, "fraction": fraction}


def _outcome(row: sa.RowMapping, settings: dict[str, Any]) -> Outcome:
    made = row["result"] or {}
    seconds = None
    if row["started_at"] is not None and row["finished_at"] is not None:
        seconds = (row["finished_at"] - row["started_at"]).total_seconds()
    return Outcome(
        job=row["id"],
        settings=settings,
        state=row["state"],
        version=made.get("version"),
        digest=made.get("digest"),
        seconds=seconds,
        error=row["error"],
    )
