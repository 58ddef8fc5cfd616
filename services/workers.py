"""Which workers live: each writes a row now and then, and readiness reads them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from services.database import tables
from services.database.clock import Clock
from services.database.engine import Database
from services.database.tables import instant


@dataclass(frozen=True)
class Worker:
    """A worker process that said lately that it lives."""

    id: str
    queues: tuple[str, ...]
    started_at: datetime
    seen_at: datetime
    is_warm: bool
    """Whether it has compiled what it keeps ready."""


class Workers:
    """The rows of the workers.

    Args:
        database: Where the rows are.
        stale_seconds: After which silence a worker counts as dead.
        clock: Seconds since 1970; the database's by default.
    """

    def __init__(
        self,
        database: Database,
        *,
        stale_seconds: float = 15.0,
        clock: Clock | None = None,
    ) -> None:
        self.database = database
        self.stale = timedelta(seconds=stale_seconds)
        self.clock = clock or database.clock

    def beat(self, id: str, queues: Sequence[str], *, is_warm: bool = True) -> None:
        """Say that a worker lives, which queues it takes and whether it is warm."""
        table, now = tables.workers, instant(self.clock())
        said = {"seen_at": now, "is_warm": is_warm}
        update = sa.update(table).where(table.c.id == id).values(said)
        row = {"id": id, "queues": list(queues), "started_at": now, **said}
        with self.database.transaction() as connection:
            if connection.execute(update).rowcount == 0:
                connection.execute(sa.insert(table).values(row))

    def leave(self, id: str) -> None:
        """Say that a worker stops."""
        table = tables.workers
        with self.database.transaction() as connection:
            connection.execute(sa.delete(table).where(table.c.id == id))

    def living(self, queue: str | None = None) -> list[Worker]:
        """Return the workers that live, of one queue where given."""
        table = tables.workers
        now = instant(self.clock())
        # What lies ahead is from before the clock was set back: a living worker soon
        # says so again, of a dead one it says nothing.
        recent = table.c.seen_at.between(now - self.stale, now + self.stale)
        with self.database.reading() as connection:
            rows = connection.execute(sa.select(table).where(recent)).mappings().all()
        found = [Worker(**{**row, "queues": tuple(row["queues"])}) for row in rows]
        return [each for each in found if queue is None or queue in each.queues]

    def forget(self, *, older_than_s: float = 24 * 3600.0) -> None:
        """Delete the rows of workers that have been silent for long."""
        table = tables.workers
        before = instant(self.clock()) - timedelta(seconds=older_than_s)
        with self.database.transaction() as connection:
            connection.execute(sa.delete(table).where(table.c.seen_at < before))
