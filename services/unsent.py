"""Queued jobs whose message is missing: which they are, and who sends them again.

A message is lost where the broker is wiped, where a gateway ends between the row and
the message, and where a worker ends or sleeps for long with the message in its hands. A
message too many does no harm: whoever comes second finds the job claimed. A sweep is
sent when its last candidate has ended, not before.

What was sent in the future was sent before the clock was set back. How long ago that
was nobody knows, so it counts as long ago.
"""

from collections.abc import Collection
from datetime import timedelta

import sqlalchemy as sa

from services.database import tables
from services.database.candidate_rows import SWEEP, WAITS
from services.database.clock import Clock
from services.database.engine import Database
from services.database.tables import instant

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

    def take(
        self, kinds: Collection[str], *, older_than_s: float
    ) -> list[tuple[str, str]]:
        """Return (kind, id) of queued jobs, not sent for that long.

        Args:
            kinds: Those whose queue is empty: nothing is on its way to them.
            older_than_s: Less than that ago, a message may be in a worker's hands.
        """
        now, age = instant(self.clock()), timedelta(seconds=older_than_s)
        return self._take(kinds, sa.or_(_sent < now - age, _sent > now + age))

    def take_overtaken(
        self, kinds: Collection[str], *, older_than_s: float
    ) -> list[tuple[str, str]]:
        """Return (kind, id) of queued jobs of one queue that later ones have overtaken.

        A queue hands its messages out in their order. Where a job runs that was sent so
        much later, the message of the earlier one is lost, though the queue may never
        be empty.

        Args:
            kinds: Those of the queue.
            older_than_s: How much later; less may be two workers side by side.
        """
        table = tables.jobs
        age = timedelta(seconds=older_than_s)
        ahead = instant(self.clock()) + age
        latest = sa.select(sa.func.max(table.c.sent_at)).where(
            table.c.state == "running",
            table.c.kind.in_(kinds),
            # All others would be earlier than what was sent in the future.
            table.c.sent_at <= ahead,
        )
        with self.database.reading() as connection:
            sent = connection.execute(latest).scalar_one()
        overtaken = sa.false() if sent is None else _sent < sent - age
        return self._take(kinds, sa.or_(overtaken, _sent > ahead))

    def take_ready(self) -> list[tuple[str, str]]:
        """Return (kind, id) of the sweeps whose last candidate has just ended."""
        return self._take((SWEEP,), tables.jobs.c.sent_at.is_(None))

    def _take(
        self, kinds: Collection[str], is_lost: sa.ColumnElement[bool]
    ) -> list[tuple[str, str]]:
        table = tables.jobs
        waiting = sa.and_(
            table.c.state == "queued", table.c.kind.in_(kinds), is_lost, ~WAITS
        )
        with self.database.reading() as connection:
            if connection.execute(sa.select(table.c.id).where(waiting)).first() is None:
                return []
        now = instant(self.clock())
        update = sa.update(table).where(waiting).values(sent_at=now)
        with self.database.transaction() as connection:
            taken = connection.execute(update.returning(table.c.kind, table.c.id))
            return [(row.kind, row.id) for row in taken]
