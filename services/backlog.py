"""How much work waits, for whoever is on call: counts and ages, by queue and kind."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from services.claims import is_due
from services.database import tables
from services.database.candidate_rows import SWEEP, UNFINISHED
from services.database.clock import Clock
from services.database.engine import Database
from services.database.tables import instant


@dataclass(frozen=True)
class Backlog:
    """The jobs of a queue and kind that have not ended, in one state.

    Args:
        queue: Which workers take them.
        kind: What they are.
        state: ``queued`` or ``running``.
        count: How many there are.
        oldest_s: How long the one has waited, or run, that has longest. One that is
            queued waits from when it may begin: a sweep when its candidates have ended,
            one that was put off when it has rested, another when it was queued last.
    """

    queue: str
    kind: str
    state: str
    count: int
    oldest_s: float


def backlog(database: Database, *, clock: Clock | None = None) -> Iterator[Backlog]:
    """Yield what has not ended.

    Args:
        database: Where the rows are.
        clock: Seconds since 1970; the database's by default.

    Raises:
        Unavailable: The database does not answer.
    """
    table, now = tables.jobs, (clock or database.clock)()
    groups = (table.c.queue, table.c.kind, table.c.state)
    oldest = sa.func.min(_since(instant(now)), type_=tables.Instant())
    query = sa.select(*groups, sa.func.count(), oldest)
    query = query.where(table.c.state.in_(UNFINISHED)).group_by(*groups)
    with database.reading() as connection:
        rows = connection.execute(query).all()
    for queue, kind, state, count, since in rows:
        age = 0.0 if since is None else max(now - since.timestamp(), 0.0)
        yield Backlog(queue, kind, state, count, age)


def _since(now: datetime) -> sa.ColumnElement[datetime]:
    """Since when a job runs or waits for a worker; NULL where it may not begin yet."""
    table = tables.jobs.c
    queued = sa.func.coalesce(table.queued_at, table.created_at)
    return sa.case(
        (table.state == "running", sa.func.coalesce(table.started_at, queued)),
        (~is_due(now), sa.null()),
        (table.kind == SWEEP, sa.func.coalesce(table.sent_at, queued)),
        (table.not_before > queued, table.not_before),
        else_=queued,
    )
