"""How much work waits, for whoever is on call: counts and ages, by queue and kind."""

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from services.database import tables
from services.database.candidate_rows import UNFINISHED
from services.database.engine import Database


@dataclass(frozen=True)
class Backlog:
    """The jobs of a queue and kind that have not ended, in one state.

    Args:
        queue: Which workers take them.
        kind: What they are.
        state: ``queued`` or ``running``.
        count: How many there are.
        oldest_s: How long ago the oldest of them was submitted.
    """

    queue: str
    kind: str
    state: str
    count: int
    oldest_s: float


def backlog(database: Database) -> Iterator[Backlog]:
    """Yield what has not ended.

    Raises:
        Unavailable: The database does not answer.
    """
    table, now = tables.jobs, database.clock()
    groups = (table.c.queue, table.c.kind, table.c.state)
    query = sa.select(
        *groups, sa.func.count().label("count"), sa.func.min(table.c.created_at)
    )
    query = query.where(table.c.state.in_(UNFINISHED)).group_by(*groups)
    with database.reading() as connection:
        rows = connection.execute(query).all()
    for queue, kind, state, count, oldest in rows:
        age = max(now - oldest.timestamp(), 0.0)
        yield Backlog(queue, kind, state, count, age)
