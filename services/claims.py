"""Which job a worker begins, and its claim: one change with its event.

A worker is told that a queue has a job and takes the first one there, as
``services.schedule`` has it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.dml import ReturningUpdate

from services.database import tables
from services.database.candidate_rows import SWEEP, WAITS
from services.database.engine import Database
from services.lifecycle import COLUMNS, TRANSITIONS, Job, as_job

LONGEST_REST = timedelta(hours=1)
"""What seems to rest for longer was put off before the clock was set back."""
_TIMES = ("now", "ahead", "until")
_CLAIMED = [tables.jobs.c[name] for name in (*COLUMNS, "token", "checkpoint")]


class MustEnd(Exception):
    """The job is to end now, with nothing made."""


class CancelRequested(MustEnd):
    """The caller asked to cancel before the job could end otherwise."""


class DeadlineExceeded(MustEnd):
    """The job's deadline passed before it had ended."""


@dataclass(frozen=True)
class Claim:
    """A worker's hold on a running job; ``token`` and worker fence every write."""

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
    database: Database, queue: str, *, worker: str, until: datetime, now: datetime
) -> Claim | None:
    """Claim the first job of a queue for a worker; say so in its events.

    Returns:
        The claim, or None where no job may begin there.
    """
    bound = {"asked": queue, "worker": worker, "until": until}
    bound |= {"now": now, "ahead": now + LONGEST_REST}
    # Where a power cut takes it back, the job is queued, and its worker gone.
    with database.by_driver() as run:
        if not database.is_sqlite:
            row = run(_take_and_tell, bound)
        elif row := run(_take, bound):
            run(_tell, {**row, "now": now})
    if row is None:
        return None
    return Claim(as_job(row), row["token"], row["checkpoint"])


def _take() -> ReturningUpdate[Any]:
    table = tables.jobs
    instants = (sa.bindparam(name, type_=tables.Instant()) for name in _TIMES)
    now, ahead, until = instants
    queue = sa.bindparam("asked", type_=table.c.queue.type)
    first = (
        sa.select(table.c.id)
        .where(table.c.queue == queue, _is_due(now, ahead))
        .order_by(table.c.rank, table.c.turn, table.c.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=table)
        # What it selects is another row of the table than the one that changes.
        .correlate(None)
    )
    assert "running" in TRANSITIONS["queued"]
    update = sa.update(table).values(
        state=sa.literal("running"),
        token=table.c.token + 1,
        lease_owner=sa.bindparam("worker", type_=sa.String()),
        lease_until=until,
        started_at=sa.func.coalesce(table.c.started_at, now),
    )
    return update.where(table.c.id == first.scalar_subquery()).returning(*_CLAIMED)


def _tell() -> sa.Insert:
    """The event of what was taken, whose columns are the parameters."""
    return sa.insert(tables.events).values(_event(sa.bindparam, sa.func.json_object))


def _take_and_tell() -> sa.Select[Any]:
    """Both in one; the row is locked before the event has its id."""
    moved = _take().cte("moved")
    event = _event(lambda name: moved.c[name], sa.func.json_build_object)
    values = sa.select(*(value.label(name) for name, value in event.items()))
    told = sa.insert(tables.events).from_select(list(event), values)
    return sa.select(moved).add_cte(told.cte("told"))


def _event(
    of: Callable[[str], sa.ColumnElement[Any]], make_json: Callable[..., Any]
) -> dict[str, sa.ColumnElement[Any]]:
    attempt = sa.cast(of("attempt"), sa.Integer)
    data = ("state", "running", "attempt", attempt, "worker", of("lease_owner"))
    return {
        "job_id": of("id"),
        "kind": sa.literal("status"),
        "level": sa.literal("info"),
        "message": sa.literal("attempt ").concat(sa.cast(attempt, sa.String)),
        "data": make_json(*data),
        "created_at": sa.bindparam("now", type_=tables.Instant()),
    }
