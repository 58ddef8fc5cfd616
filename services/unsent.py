"""Queued jobs of which no worker has word: whom to send again, and what to give up.

A message is lost where the broker is wiped, where a gateway ends between the row and
the message, and where a worker ends or sleeps for long with the message in its hands.
Messages say that a queue has a job, not which, so what is lost is a number: as many as
jobs are due beyond the messages that wait. A message too many does no harm. A sweep is
due when its last candidate has ended, not before.

What was sent in the future was sent before the clock was set back. How long ago that
was nobody knows, so it counts as long ago.
"""

from datetime import timedelta

import sqlalchemy as sa

from services.claims import is_due
from services.database import tables
from services.database.candidate_rows import SWEEP
from services.database.clock import Clock
from services.database.engine import Database
from services.database.tables import instant
from services.lifecycle import add_event, move
from services.schedule import LATE

MOST_AT_ONCE = 500
"""So many jobs a round takes; the next one takes more.

The worker says that it lives between two rounds. A statement of PostgreSQL has 65,535
parameters at most.
"""
_sent = sa.func.coalesce(tables.jobs.c.sent_at, tables.jobs.c.created_at)
"""When it was sent, or should have been."""


class Unsent:
    """Finds queued jobs to send again; each is given to one caller alone.

    Args:
        database: Where the rows are.
        clock: Seconds since 1970; the database's by default.
    """

    def __init__(self, database: Database, *, clock: Clock | None = None) -> None:
        self.database = database
        self.clock = clock or database.clock

    def queues(self) -> list[str]:
        """Return the queues that have queued jobs."""
        table = tables.jobs
        query = sa.select(table.c.queue).where(table.c.state == "queued").distinct()
        with self.database.reading() as connection:
            return sorted(connection.execute(query).scalars())

    def take(self, queue: str, *, waiting: int, older_than_s: float) -> list[str]:
        """Return ids of jobs to send: as many as are due beyond the messages there.

        They are 500 at most, those first that have waited longest.

        Args:
            queue: Whose jobs.
            waiting: How many messages wait in it.
            older_than_s: Jobs that were sent less than that ago are not among them:
                their message may be in a worker's hands.
        """
        now, age = instant(self.clock()), timedelta(seconds=older_than_s)
        table = tables.jobs
        due = sa.and_(table.c.queue == queue, is_due(now))
        old = sa.or_(_sent < now - age, _sent > now + age)
        query = sa.select(table.c.id).where(due, old).order_by(_sent, table.c.id)
        with self.database.reading() as connection:
            count = sa.select(sa.func.count()).select_from(table).where(due)
            lacking = connection.execute(count).scalar_one() - waiting
            if lacking <= 0:
                return []
            some = query.limit(min(lacking, MOST_AT_ONCE))
            found = list(connection.execute(some).scalars())
        return self._note(sa.and_(table.c.id.in_(found), due, old))

    def take_ready(self) -> list[tuple[str, str]]:
        """Return (queue, id) of the sweeps whose last candidate has just ended."""
        table = tables.jobs
        due = sa.and_(table.c.kind == SWEEP, is_due(instant(self.clock())))
        mine = sa.and_(due, table.c.sent_at.is_(None))
        query = sa.select(table.c.id, table.c.queue).where(mine).limit(MOST_AT_ONCE)
        with self.database.reading() as connection:
            queues = {row.id: row.queue for row in connection.execute(query)}
        if not queues:
            return []
        taken = self._note(sa.and_(table.c.id.in_(list(queues)), mine))
        return [(queues[id], id) for id in taken]

    def fail_late(self) -> list[str]:
        """Fail the queued jobs whose deadline has passed; return their ids."""
        now, table = instant(self.clock()), tables.jobs
        late = sa.and_(table.c.state == "queued", table.c.deadline <= now)
        query = sa.select(table.c.id).where(late).limit(MOST_AT_ONCE)
        with self.database.reading() as connection:
            found = list(connection.execute(query).scalars())
        return [id for id in found if self._fail(id)]

    def _fail(self, id: str) -> bool:
        now, table = instant(self.clock()), tables.jobs
        # It may have been failed and retried since, with a deadline that is ahead.
        late = sa.and_(table.c.id == id, table.c.deadline <= now)
        query = sa.select(table.c.id).where(late).with_for_update(skip_locked=True)
        with self.database.transaction() as connection:
            if connection.execute(query).one_or_none() is None:
                return False
            row = move(
                connection, id, before="queued", after="failed", now=now, error=LATE
            )
            if row is None:
                return False
            data = {"state": "failed", "error": LATE}
            text = LATE["detail"]
            add_event(connection, id, "status", text, now, data, level="error")
        return True

    def _note(self, chosen: sa.ColumnElement[bool]) -> list[str]:
        """Write that jobs are sent now; the ids of those that no other process sent.

        Who has the row of one may be cut off: it is left for the next round.
        """
        table, now = tables.jobs, instant(self.clock())
        free = sa.select(table.c.id).where(chosen).correlate(None)
        free = free.with_for_update(skip_locked=True, of=table)
        update = sa.update(table).where(table.c.id.in_(free)).values(sent_at=now)
        with self.database.transaction() as connection:
            taken = connection.execute(update.returning(table.c.id))
            return list(taken.scalars())
