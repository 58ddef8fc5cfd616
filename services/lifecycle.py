"""The life of a job, written down once: its record, its states, how they may change.

::

    queued ──claim──▶ running ──▶ succeeded
      │ ▲               │ │ └───▶ failed ────┐
      │ └─release, reap─┘ └─────▶ cancelled ─┤
      ├──cancel──────────────────────▲       │
      ├──deadline────────────────▶ failed    │
      └◀──────────────retry──────────────────┘

``services.jobs`` is the side of the callers, ``services.leases`` that of the workers;
both change a state through ``move`` alone, but for the claim, ``services.claims``.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

import sqlalchemy as sa

from services.database import tables

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
TERMINAL: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})
TRANSITIONS: dict[str, frozenset[str]] = {
    "queued": frozenset({"running", "cancelled", "failed"}),
    "running": frozenset({"succeeded", "failed", "cancelled", "queued"}),
    "failed": frozenset({"queued"}),
    "cancelled": frozenset({"queued"}),
    "succeeded": frozenset(),
}
"""Which state may follow which."""
# Nobody asks for the new row's id.
_APPEND = sa.insert(tables.events).inline()


@dataclass(frozen=True)
class Job:
    """A job as its row says."""

    id: str
    kind: str
    queue: str
    rank: int
    owner: str
    project: str
    """Who sees it."""
    state: State
    request: dict[str, Any]
    progress: dict[str, Any] | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    attempt: int
    max_attempts: int
    cancel_requested: bool
    created_at: datetime
    deadline: datetime | None
    """When it fails unless it has ended."""
    started_at: datetime | None
    finished_at: datetime | None
    dropped_at: datetime | None
    """When its result in the store was deleted."""
    parent: str | None
    """The sweep that it is a candidate of."""
    worker: str | None
    """Who runs it now."""
    traceparent: str | None
    """Of the span that it was queued in, where there are such."""

    @property
    def priority(self) -> int:
        """A queue's jobs of a higher one begin first."""
        return -self.rank

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

    def send_job(self, queue: str, id: str) -> bool:
        """Send it; whether the broker took it."""
        ...


def move(
    connection: sa.Connection,
    id: str,
    *,
    before: State,
    after: State,
    now: datetime,
    fence: tuple[int, str | None] | None = None,
    **values: Any,
) -> sa.RowMapping | None:
    """Change a job's state if it still is ``before``.

    With ``fence`` only if these are its token and the worker that holds it.

    Returns:
        The row as it is now, or None where the job was not in that state any more.

    Raises:
        ValueError: No job may change so.
    """
    if after not in TRANSITIONS[before]:
        raise ValueError(f"{before} never becomes {after}")
    implied: dict[str, Any] = {"state": after}
    if before == "running":
        implied |= {"lease_owner": None, "lease_until": None}
    if after in TERMINAL:
        implied["finished_at"] = now
    if after == "queued":
        implied |= {"sent_at": None, "not_before": None, "queued_at": now}
    new = implied | values
    update = _update(frozenset(new), is_fenced=fence is not None)
    bound = {f"new_{name}": value for name, value in new.items()}
    bound |= {"job": id, "before": before}
    if fence is not None:
        bound["fence"], bound["holder"] = fence
    return connection.execute(update, bound).mappings().one_or_none()


@functools.cache
def _update(names: frozenset[str], *, is_fenced: bool) -> Any:
    """The statement of a change, made once: that takes longer than to run it."""
    table = tables.jobs
    new = {
        name: sa.bindparam(f"new_{name}", type_=table.c[name].type)
        for name in sorted(names)
    }
    update = sa.update(table).where(
        table.c.id == sa.bindparam("job"), table.c.state == sa.bindparam("before")
    )
    if is_fenced:
        update = update.where(
            table.c.token == sa.bindparam("fence"),
            table.c.lease_owner == sa.bindparam("holder"),
        )
    return update.values(new).returning(*table.c)


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
    event = {
        "job_id": job_id,
        "kind": kind,
        "level": level,
        "message": message,
        "data": data,
        "created_at": now,
    }
    connection.execute(_APPEND, event)


def cancel_row(
    connection: sa.Connection, id: str, now: datetime
) -> sa.RowMapping | None:
    """Cancel a job that waits, and flag one that runs for its worker to stop.

    Returns:
        The row as it is now, or None where the job has ended.
    """
    row = move(connection, id, before="queued", after="cancelled", now=now)
    if row is not None:
        add_event(connection, id, "status", "cancelled", now, {"state": "cancelled"})
        return row
    table = tables.jobs
    update = sa.update(table).where(table.c.id == id, table.c.state == "running")
    flagged = update.values(cancel_requested=True).returning(*table.c)
    row = connection.execute(flagged).mappings().one_or_none()
    if row is not None:
        add_event(connection, id, "status", "cancel requested", now)
    return row


_RENAMED = {"worker": "lease_owner", "parent": "parent_id"}
_COLUMN_OF = {name: _RENAMED.get(name, name) for name in Job.__dataclass_fields__}
COLUMNS = tuple(_COLUMN_OF.values())
"""Those that a record takes."""


def as_job(row: Mapping[Any, Any]) -> Job:
    """Return the record of a row of ``jobs``."""
    return Job(**{name: row[column] for name, column in _COLUMN_OF.items()})
