"""Rows of a sweep and of its candidates: jobs whose ``parent_id`` is the sweep's id.

A sweep locks its own row first and then those of its candidates, in the order of their
ids; a candidate locks no row but its own.
"""

from collections import Counter
from typing import Any

import sqlalchemy as sa

from services.database import tables

SWEEP = "sweep"
"""Kind of the jobs that have candidates."""
UNFINISHED = ("queued", "running")
_CANDIDATE = tables.jobs.alias("candidate")
WAITS = (
    sa.select(_CANDIDATE.c.id)
    .where(
        _CANDIDATE.c.parent_id == tables.jobs.c.id,
        # Without IN, whose parameters a driver's own statement does not take.
        sa.or_(*(_CANDIDATE.c.state == state for state in UNFINISHED)),
    )
    .exists()
)
"""Whether a job of an enclosing statement has candidates that have not ended."""


def ids_of(connection: sa.Connection, sweep: str, states: tuple[str, ...]) -> list[str]:
    """Return the ids of the candidates in some states, in their order."""
    table = tables.jobs
    mine = sa.and_(table.c.parent_id == sweep, table.c.state.in_(states))
    query = sa.select(table.c.id).where(mine).order_by(table.c.id)
    return list(connection.execute(query).scalars())


def rows_of(connection: sa.Connection, sweep: str) -> dict[str, sa.RowMapping]:
    """Return the rows of the candidates by their ids."""
    query = sa.select(tables.jobs).where(tables.jobs.c.parent_id == sweep)
    return {row["id"]: row for row in connection.execute(query).mappings()}


def counts_of(connection: sa.Connection, sweep: str) -> Counter[str]:
    """Return how many candidates are in which state."""
    table = tables.jobs
    query = sa.select(table.c.state, sa.func.count()).where(table.c.parent_id == sweep)
    found = connection.execute(query.group_by(table.c.state))
    return Counter({row[0]: row[1] for row in found})


def write_progress(
    connection: sa.Connection, sweep: str, progress: dict[str, Any]
) -> None:
    """Write how far a sweep is; its row is locked."""
    table = tables.jobs
    update = sa.update(table).where(table.c.id == sweep)
    connection.execute(update.values(progress=progress))


def waiting(connection: sa.Connection) -> dict[str, dict[str, Any] | None]:
    """Return the progress of the sweeps that no worker has yet, by their ids."""
    table = tables.jobs
    mine = sa.and_(table.c.kind == SWEEP, table.c.state == "queued")
    found = connection.execute(sa.select(table.c.id, table.c.progress).where(mine))
    return {row.id: row.progress for row in found}


def lock_waiting(
    connection: sa.Connection, sweep: str, *, skips: bool = False
) -> sa.RowMapping | None:
    """Lock a sweep that no worker has yet and return it; None where one has it.

    With ``skips`` also where another transaction has its row.
    """
    table = tables.jobs
    mine = sa.and_(table.c.id == sweep, table.c.state == "queued")
    query = sa.select(table).where(mine).with_for_update(skip_locked=skips)
    return connection.execute(query).mappings().one_or_none()
