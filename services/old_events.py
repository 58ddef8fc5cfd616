"""Events of jobs that ended long ago: what is told often goes, their story stays."""

from datetime import timedelta

import sqlalchemy as sa

from services.database import tables
from services.database.clock import Clock
from services.database.engine import Database
from services.database.tables import instant
from services.lifecycle import TERMINAL

_MANY = ("metrics", "log", "checkpoint")
_JOBS_AT_ONCE = 100


class OldEvents:
    """Deletes what nobody looks at any more, some jobs at a time.

    Args:
        database: Where the rows are.
        kept_s: How long they are kept after their job has ended.
        clock: Seconds since 1970; the database's by default.
    """

    def __init__(
        self, database: Database, *, kept_s: float, clock: Clock | None = None
    ) -> None:
        self.database = database
        self.kept = timedelta(seconds=kept_s)
        self.clock = clock or database.clock

    def sweep(self) -> int:
        """Delete what is due; return how many events that were.

        Raises:
            Unavailable: The database does not answer.
        """
        count = 0
        while True:
            deleted = self._sweep_some()
            count += deleted
            if not deleted:
                return count

    def _sweep_some(self) -> int:
        jobs, events = tables.jobs.c, tables.events.c
        many = sa.and_(events.job_id == jobs.id, events.kind.in_(_MANY))
        before = instant(self.clock()) - self.kept
        due = sa.select(jobs.id).where(
            jobs.state.in_(TERMINAL), jobs.finished_at < before
        )
        some = due.where(sa.exists().where(many)).limit(_JOBS_AT_ONCE)
        with self.database.reading() as connection:
            found = list(connection.execute(some).scalars())
        if not found:
            return 0
        # One of them may have been queued again since.
        still = due.where(jobs.id.in_(found))
        gone = sa.delete(tables.events).where(
            events.job_id.in_(still), events.kind.in_(_MANY)
        )
        with self.database.transaction() as connection:
            return connection.execute(gone).rowcount
