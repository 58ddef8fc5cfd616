"""Leases: how a worker holds a job, and how nobody else can write meanwhile.

A claim raises the job's fencing token. Every later write names it and the worker, so a
worker that lost its lease (paused, cut off, killed) can change nothing. What is written
with a claim is one transaction with the check.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from services.claims import CancelRequested, Claim, DeadlineExceeded, begin
from services.database import tables
from services.database.clock import Clock
from services.database.engine import Database
from services.database.tables import instant
from services.errors import LeaseLost
from services.lease_watch import Absences, LeaseWatch
from services.lifecycle import Job, Sender, add_event, as_job, move
from services.outbox import Outbox


@dataclass(frozen=True)
class Note:
    """An event to append with the next heartbeat."""

    kind: str
    message: str
    data: dict[str, Any] | None = None
    level: str = "info"


class Leases:
    """What workers do with jobs.

    Args:
        database: Where the rows are.
        sender: Sends a job's id to the workers when it is queued again.
        lease_seconds: How long a claim holds without a heartbeat.
        rest_seconds: How long a job rests that is put off.
        clock: Seconds since 1970; the database's by default.
        monotonic: Seconds that never go back, by which leases are watched.
    """

    def __init__(
        self,
        database: Database,
        sender: Sender | None = None,
        *,
        lease_seconds: float = 15.0,
        rest_seconds: float = 30.0,
        clock: Clock | None = None,
        monotonic: Clock = time.monotonic,
    ) -> None:
        self.database = database
        self.lease = timedelta(seconds=lease_seconds)
        self.rest = timedelta(seconds=rest_seconds)
        self.clock = clock or database.clock
        self._outbox = Outbox(database, sender, self.clock)
        self._watch = LeaseWatch(2 * lease_seconds, monotonic)
        self._absences = Absences(lease_seconds, monotonic)

    def claim(self, queue: str, worker: str) -> Claim | None:
        """Take the first job of a queue; None where none may begin there."""
        now, database = instant(self.clock()), self.database
        return begin(database, queue, worker=worker, until=now + self.lease, now=now)

    def heartbeat(
        self,
        claim: Claim,
        *,
        progress: dict[str, Any] | None = None,
        checkpoint: str | None = None,
        notes: Iterable[Note] = (),
    ) -> bool:
        """Renew the lease and write what happened since the last time.

        Returns:
            Whether the caller asked to cancel.

        Raises:
            LeaseLost: The job is another's now, or ended.
        """
        values: dict[str, Any] = {} if progress is None else {"progress": progress}
        if checkpoint is not None:
            values |= {"checkpoint": checkpoint, **_not_counting(claim)}
        with self.database.transaction() as connection:
            row = self._renew(connection, claim, **values)
            now = instant(self.clock())
            for note in notes:
                add_event(
                    connection,
                    claim.job.id,
                    note.kind,
                    note.message,
                    now,
                    note.data,
                    level=note.level,
                )
        return bool(row["cancel_requested"])

    def is_cancel_requested(self, claim: Claim) -> bool:
        """Whether the caller asked to cancel: a look that writes nothing.

        Raises:
            LeaseLost: The job is another's now, or ended.
        """
        table = tables.jobs
        query = sa.select(table.c.cancel_requested).where(_held(claim))
        with self.database.reading() as connection:
            flag = connection.execute(query).scalar_one_or_none()
        if flag is None:
            raise _lost(claim.job.id)
        return bool(flag)

    def guard(
        self, connection: sa.Connection, claim: Claim, *, goes_on: bool = False
    ) -> None:
        """Check the claim and lock the row, first in a transaction that publishes.

        Later attempts go on from what a ``goes_on`` keeps, so this one does not count.

        Raises:
            LeaseLost: The job is another's now, or ended.
            CancelRequested: The caller has asked to cancel it.
            DeadlineExceeded: Its deadline has passed.
        """
        values = _not_counting(claim) if goes_on else {}
        if self._renew(connection, claim, **values)["cancel_requested"]:
            raise CancelRequested
        self.check_deadline(claim)

    def check_deadline(self, claim: Claim) -> None:
        """Return while a job's deadline has not passed.

        Raises:
            DeadlineExceeded: It has.
        """
        end = claim.job.deadline
        if end is not None and end <= instant(self.clock()):
            raise DeadlineExceeded

    def succeed(
        self,
        connection: sa.Connection,
        claim: Claim,
        result: dict[str, Any],
        message: str,
    ) -> None:
        """End the job well, in the transaction that publishes its result.

        Raises:
            LeaseLost: The job is another's now, or ended.
        """
        self._end(
            connection,
            claim,
            "succeeded",
            message,
            {"result": result},
            result=result,
            error=None,
        )

    def fail(self, claim: Claim, error: dict[str, Any]) -> None:
        """End the job with a typed error ``{code, detail, field?}``.

        Raises:
            LeaseLost: The job is another's now, or ended.
        """
        with self.database.transaction() as connection:
            self._end(
                connection,
                claim,
                "failed",
                str(error["detail"]),
                {"error": error},
                error=error,
            )

    def cancel(self, claim: Claim) -> None:
        """End the job as its caller asked.

        Raises:
            LeaseLost: The job is another's now, or ended.
        """
        with self.database.transaction() as connection:
            self._end(connection, claim, "cancelled", "cancelled", {})

    def release(self, claim: Claim, reason: str) -> None:
        """Give the job back, queued at once; the attempt does not count.

        Raises:
            LeaseLost: The job is another's now, or ended.
        """
        with self.database.transaction() as connection:
            self._requeue(connection, claim.job, claim.token, reason, counts=False)
        self._outbox.send(claim.job)

    def put_off(self, claim: Claim, reason: str) -> None:
        """Give the job back for a while; no attempt is counted.

        For what is not the job's fault: the store does not answer, or is full.

        Raises:
            LeaseLost: The job is another's now, or ended.
        """
        with self.database.transaction() as connection:
            self._requeue(
                connection,
                claim.job,
                claim.token,
                reason,
                counts=False,
                level="warning",
                not_before=instant(self.clock()) + self.rest,
            )

    def crash(self, claim: Claim, reason: str) -> None:
        """Count a crashed attempt: queued again, or failed after the last.

        Raises:
            LeaseLost: The job is another's now, or ended.
        """
        with self.database.transaction() as connection:
            job, token = claim.job, claim.token
            is_queued = self._requeue(connection, job, token, reason, counts=True)
        if is_queued:
            self._outbox.send(claim.job)

    def arrive(self) -> None:
        """Say that this process has just come, and does not know what was before.

        The database may have been away until now: workers that live have one lease's
        time to renew theirs before ``reap`` takes one back by its end.
        """
        self._absences.begin()

    def reap(self) -> list[str]:
        """Take back every job whose lease has ended; return their ids.

        A lease has ended where its end has passed, or where this process has watched
        for two leases how nobody renewed it. For when a clock is set back, all that was
        written before lies far ahead, the lease of a dead worker too. After a time in
        which nobody could renew, workers that live have one lease's to do so.
        """
        wall, table = self.clock(), tables.jobs
        now = instant(wall)
        running = sa.select(table.c.id, table.c.lease_until)
        with self.database.reading() as connection:
            found = connection.execute(running.where(table.c.state == "running"))
            ends = {row.id: row.lease_until for row in found}
        silent = self._watch.silent(ends)
        own_clock = wall if self.database.is_sqlite else None
        could_renew = not self._absences.is_recent(own_clock)
        return [
            id
            for id, end in ends.items()
            if (id in silent or (could_renew and end < now)) and self._reap(id, end)
        ]

    def _renew(
        self, connection: sa.Connection, claim: Claim, **values: Any
    ) -> sa.RowMapping:
        table = tables.jobs
        until = instant(self.clock()) + self.lease
        update = (
            sa.update(table).where(_held(claim)).values(lease_until=until, **values)
        )
        row = connection.execute(update.returning(*table.c)).mappings().one_or_none()
        if row is None:
            raise _refused(claim.job.id, claim.token)
        return row

    def _end(
        self,
        connection: sa.Connection,
        claim: Claim,
        after: Any,
        message: str,
        data: dict[str, Any],
        **values: Any,
    ) -> None:
        now, id = instant(self.clock()), claim.job.id
        row = move(
            connection,
            id,
            before="running",
            after=after,
            now=now,
            fence=(claim.token, claim.job.worker),
            **values,
        )
        if row is None:
            raise _refused(id, claim.token)
        level = "error" if after == "failed" else "info"
        data = {"state": after, **data}
        add_event(connection, id, "status", message, now, data, level=level)

    def _requeue(
        self,
        connection: sa.Connection,
        job: Job,
        token: int,
        reason: str,
        *,
        counts: bool,
        level: str = "info",
        **values: Any,
    ) -> bool:
        """Whether the job is queued now, and not at its end."""
        is_cancelled, most = _asked(connection, job.id)
        if is_cancelled:
            self._end(connection, Claim(job, token, None), "cancelled", reason, {})
            return False
        now = instant(self.clock())
        final = counts and job.attempt >= most
        error = {
            "code": "attempts_exhausted",
            "detail": f"{reason}; that was attempt {job.attempt} of {most}",
        }
        values |= {"error": error} if final else {"attempt": job.attempt + int(counts)}
        row = move(
            connection,
            job.id,
            before="running",
            after="failed" if final else "queued",
            now=now,
            fence=(token, job.worker),
            **values,
        )
        if row is None:
            raise _refused(job.id, token)
        data = {"state": row["state"], "attempt": row["attempt"], "reason": reason}
        level = "error" if final else "warning" if counts else level
        add_event(connection, job.id, "status", reason, now, data, level=level)
        return not final

    def _reap(self, id: str, end: datetime) -> bool:
        # Who has the row now may be cut off: that must hold up no other job.
        query = sa.select(tables.jobs).where(tables.jobs.c.id == id)
        query = query.with_for_update(skip_locked=True)
        try:
            with self.database.transaction() as connection:
                row = connection.execute(query).mappings().one_or_none()
                if row is None or row["lease_until"] != end:
                    return False
                job = as_job(row)
                reason = f"worker {job.worker} stopped renewing its lease"
                token = row["token"]
                is_queued = self._requeue(connection, job, token, reason, counts=True)
        except LeaseLost:
            return False
        if is_queued:
            self._outbox.send(job)
        return True


def _not_counting(claim: Claim) -> dict[str, Any]:
    """An attempt that others go on from leaves as many attempts as there were."""
    return {"max_attempts": claim.job.max_attempts + 1}


def _held(claim: Claim) -> sa.ColumnElement[bool]:
    table = tables.jobs
    return sa.and_(
        table.c.id == claim.job.id,
        table.c.state == "running",
        table.c.token == claim.token,
        # A token is given twice where a backup of the database was restored.
        table.c.lease_owner == claim.job.worker,
    )


def _asked(connection: sa.Connection, id: str) -> tuple[bool, int]:
    """Whether a job is to be cancelled, and its attempts at most; its row is locked."""
    columns = tables.jobs.c
    query = sa.select(columns.cancel_requested, columns.max_attempts)
    row = connection.execute(query.where(columns.id == id).with_for_update()).one()
    return bool(row.cancel_requested), row.max_attempts


def _refused(id: str, token: int) -> LeaseLost:
    """What a write meets whose token is old, or whose job ended."""
    return LeaseLost(
        f"job {id!r} is no longer this worker's: a write with fencing token {token} "
        "was refused"
    )


def _lost(id: str) -> LeaseLost:
    return LeaseLost(f"job {id!r} is no longer this worker's")
