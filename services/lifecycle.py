"""The life of a job, written down once: its record, its states, how they may change.

::

    queued ──claim──▶ running ──▶ succeeded
      │ ▲               │ │ └───▶ failed ────┐
      │ └─release, reap─┘ └─────▶ cancelled ─┤
      ├──cancel──────────────────────▲       │
      └◀──────────────retry──────────────────┘

``services.jobs`` is the side of the callers, ``services.leases`` that of the workers;
both change a state through ``move`` alone.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

import sqlalchemy as sa

from services.database import tables

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
TERMINAL: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})
TRANSITIONS: dict[str, frozenset[str]] = {
    "queued": frozenset({"running", "cancelled"}),
    "running": frozenset({"succeeded", "failed", "cancelled", "queued"}),
    "failed": frozenset({"queued"}),
    "cancelled": frozenset({"queued"}),
    "succeeded": frozenset(),
}
"""Which state may follow which."""


@dataclass(frozen=True)
class Job:
    """A job as its row says."""

    id: str
    kind: str
    owner: str
    state: State
    request: dict[str, Any]
    progress: dict[str, Any] | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    attempt: int
    max_attempts: int
    cancel_requested: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    dropped_at: datetime | None
    """When its result in the store was deleted."""
    worker: str | None
    """Who runs it now."""

    @property
    def is_terminal(self) -> bool:
        """Whether it has ended."""
        return self.state in TERMINAL


@dataclass(frozen=True)
class Event:
    """Something that happened to a job; ids increase within a job."""

    id: int
    job_id: str
    kind: str
    """``status``, ``metrics``, ``log`` or ``checkpoint``."""
    level: str
    """``info``, ``warning`` or ``error``."""
    message: str
    data: dict[str, Any] | None
    created_at: datetime


class Sender(Protocol):
    """What sends a job's id to the workers: ``services.queue.Queue``."""

    def send_job(self, kind: str, id: str) -> bool:
        """Send it; whether the broker took it."""
        ...


def move(
    connection: sa.Connection,
    id: str,
    *,
    before: State,
    after: State,
    now: datetime,
    fence: int | None = None,
    **values: Any,
) -> sa.RowMapping | None:
    """Change a job's state if it still is ``before``, and ``fence`` its token.

    Returns:
        The row as it is now, or None where the job was not in that state any more.
    """
    assert after in TRANSITIONS[before], f"{before} never becomes {after}"
    table = tables.jobs
    implied: dict[str, Any] = {"state": after}
    if before == "running":
        implied |= {"lease_owner": None, "lease_until": None}
    if after in TERMINAL:
        implied["finished_at"] = now
    if after == "queued":
        implied["sent_at"] = None
    update = sa.update(table).where(table.c.id == id, table.c.state == before)
    if fence is not None:
        update = update.where(table.c.token == fence)
    changed = update.values(implied | values).returning(*table.c)
    return connection.execute(changed).mappings().one_or_none()


def add_event(
    connection: sa.Connection,
    job_id: str,
    kind: str,
    message: str,
    now: datetime,
    data: dict[str, Any] | None = None,
    *,
    level: str = "info",
) -> None:
    """Append an event, in the transaction that has just written the job's row.

    That write locks the row, so events of a job are committed in the order of their
    ids, on PostgreSQL too.
    """
    connection.execute(
        sa.insert(tables.events).values(
            job_id=job_id,
            kind=kind,
            level=level,
            message=message,
            data=data,
            created_at=now,
        )
    )


def as_job(row: sa.RowMapping) -> Job:
    """Return the record of a row of ``jobs``."""
    names = [name for name in Job.__dataclass_fields__ if name != "worker"]
    return Job(worker=row["lease_owner"], **{name: row[name] for name in names})
