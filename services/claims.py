"""Which job a worker begins, and its claim: one change with its event.

A worker is told of some job of a queue and takes the first one there, as
``services.schedule`` has it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from services.database import tables
from services.database.candidate_rows import SWEEP, WAITS
from services.database.engine import Database
from services.lifecycle import Job, add_event, as_job, changing, move

LONGEST_REST = timedelta(hours=1)
"""What seems to rest for longer was put off before the clock was set back."""
_TIMES = ("now", "ahead")


class MustEnd(Exception):
    """The job is to end now, with nothing made."""


class CancelRequested(MustEnd):
    """The caller asked to cancel before the job could end otherwise."""


class DeadlineExceeded(MustEnd):
    """The job's deadline passed before it had ended."""


@dataclass(frozen=True)
class Claim:
    """A worker's hold on a running job; ``token`` fences every write."""

    job: Job
    token: int
    checkpoint: str | None
    """Digest of the checkpoint of an earlier attempt, if there is one."""


def is_due(now: datetime) -> sa.ColumnElement[bool]:
    """Whether a job may begin: it is queued, waits for nothing, and has time left."""
    return _is_due(now, now + LONGEST_REST)


def _is_due(now: Any, ahead: Any) -> sa.ColumnElement[bool]:
    table = tables.jobs
    rests = table.c.not_before.between(now, ahead)
    return sa.and_(
        table.c.state == "queued",
        sa.or_(table.c.not_before.is_(None), ~rests),
        sa.or_(table.c.deadline.is_(None), table.c.deadline > now),
        sa.or_(table.c.kind != SWEEP, ~WAITS),
    )


def begin(
    database: Database, id: str, *, worker: str, until: datetime, now: datetime
) -> Claim | None:
    """Claim the first job in the queue of a job for a worker; say so in its events.

    Returns:
        The claim, or None where no job may begin there.
    """
    lease = {"lease_owner": worker, "lease_until": until}
    asked: dict[str, Any] = {"hint": id, "now": now, "ahead": now + LONGEST_REST}
    if not database.is_sqlite:
        new = {"state": "running", "started_at": now, **lease}
        bound = asked | {f"new_{name}": value for name, value in new.items()}
        row: Mapping[Any, Any] | None = database.run(_begin, bound)
        return None if row is None else _claim(row)
    # Where a power cut takes it back, the job is queued, and its worker gone.
    with database.transaction(is_durable=False) as connection:
        first = connection.execute(_FIRST, asked).scalar()
        if first is None:
            return None
        row = move(
            connection, first, before="queued", after="running", now=now, **lease
        )
        assert row is not None, "nobody else writes"
        data = {"state": "running", "attempt": row["attempt"], "worker": worker}
        add_event(connection, first, "status", f"attempt {row['attempt']}", now, data)
    return _claim(row)


def _claim(row: Mapping[Any, Any]) -> Claim:
    return Claim(as_job(row), row["token"], row["checkpoint"])


def _first() -> sa.Select[Any]:
    table = tables.jobs
    now, ahead = (sa.bindparam(name, type_=tables.Instant()) for name in _TIMES)
    hinted = tables.jobs.alias("hinted")
    queue = sa.select(hinted.c.queue).where(hinted.c.id == sa.bindparam("hint"))
    return (
        sa.select(table.c.id)
        .where(table.c.queue == queue.scalar_subquery(), _is_due(now, ahead))
        .order_by(table.c.rank, table.c.turn, table.c.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=table)
    )


_FIRST = _first()


def _begin() -> sa.Select[Any]:
    """The change with its event; the row is locked before the event has its id."""
    names = frozenset({"state", "started_at", "lease_owner", "lease_until"})
    # What it selects is another row of the table than the one that it changes.
    first = _first().correlate(None).scalar_subquery()
    update = changing("running", names).where(tables.jobs.c.id == first)
    moved = update.returning(*tables.jobs.c).cte("moved")
    words = map(sa.literal_column, ("'state'", "'running'", "'attempt'", "'worker'"))
    state, running, attempt, worker = words
    event = {
        "job_id": moved.c.id,
        "kind": sa.literal_column("'status'"),
        "level": sa.literal_column("'info'"),
        "message": sa.func.concat(sa.literal_column("'attempt '"), moved.c.attempt),
        "data": sa.func.json_build_object(
            state, running, attempt, moved.c.attempt, worker, moved.c.lease_owner
        ),
        "created_at": sa.bindparam("now", type_=tables.events.c.created_at.type),
    }
    told = sa.insert(tables.events).from_select(list(event), sa.select(*event.values()))
    return sa.select(moved).add_cte(told.cte("told"))
