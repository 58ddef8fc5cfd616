"""Queued jobs whose message is missing: which they are, and who sends them again.

A message is lost where the broker is wiped, where a gateway ends between the row and
the message, and where a worker ends or sleeps for long with the message in its hands. A
message too many does no harm: whoever comes second finds the job claimed.
"""

import time
from collections.abc import Callable, Collection
from datetime import timedelta

import sqlalchemy as sa

from services.database import tables
from services.database.engine import Database
from services.database.tables import instant


class Unsent:
    """Finds queued jobs to send again; each is given to one caller alone.

    Args:
        database: Where the rows are.
        clock: Seconds since 1970.
    """

    def __init__(
        self, database: Database, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.database = database
        self.clock = clock

    def take(
        self, kinds: Collection[str], *, older_than_s: float
    ) -> list[tuple[str, str]]:
        """Return (kind, id) of queued jobs, not sent for that long.

        Args:
            kinds: Those whose queue is empty: nothing is on its way to them.
            older_than_s: Less than that ago, a message may be in a worker's hands.
        """
        table = tables.jobs
        before = instant(self.clock()) - timedelta(seconds=older_than_s)
        never_sent = sa.and_(table.c.sent_at.is_(None), table.c.created_at < before)
        return self._take(kinds, sa.or_(table.c.sent_at < before, never_sent))

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
        latest = sa.select(sa.func.max(table.c.sent_at)).where(
            table.c.state == "running", table.c.kind.in_(kinds)
        )
        with self.database.reading() as connection:
            sent = connection.execute(latest).scalar_one()
        if sent is None:
            return []
        before = sent - timedelta(seconds=older_than_s)
        never_sent = sa.and_(table.c.sent_at.is_(None), table.c.created_at < before)
        return self._take(kinds, sa.or_(table.c.sent_at < before, never_sent))

    def _take(
        self, kinds: Collection[str], is_lost: sa.ColumnElement[bool]
    ) -> list[tuple[str, str]]:
        table = tables.jobs
        waiting = sa.and_(table.c.state == "queued", table.c.kind.in_(kinds), is_lost)
        with self.database.reading() as connection:
            if connection.execute(sa.select(table.c.id).where(waiting)).first() is None:
                return []
        now = instant(self.clock())
        update = sa.update(table).where(waiting).values(sent_at=now)
        with self.database.transaction() as connection:
            taken = connection.execute(update.returning(table.c.kind, table.c.id))
            return [(row.kind, row.id) for row in taken]
