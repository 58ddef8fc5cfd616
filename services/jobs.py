"""Jobs as their callers see them: submit, look, cancel, retry, read the events.

The row is the truth; a message to the workers carries its id and may be lost. How a
job's state changes is written in ``services.lifecycle``.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from services.database import tables
from services.database.candidate_rows import SWEEP, UNFINISHED, ids_of, rows_of
from services.database.clock import Clock
from services.database.engine import Database
from services.database.idempotency import (
    Asked,
    free_job_key,
    job_under,
    made_under,
    remember,
    request_digest,
    reused,
)
from services.database.paging import Page, page_of
from services.database.tables import instant
from services.datasets import no_such_dataset
from services.errors import Conflict, NotFound
from services.held import hold_dataset, hold_versions
from services.identity import new_id
from services.lifecycle import Event, Job, Sender, add_event, as_job, cancel_row
from services.outbox import Outbox
from services.projects import EVERYTHING, Access
from services.retries import RETRIABLE, check_ended, check_retriable, queue_again
from services.schedule import check_room, place_of
from services.traces import traceparent


class Jobs:
    """What callers do with jobs.

    Args:
        database: Where the rows are.
        sender: Sends a queued job's id to the workers; None leaves that to their
            housekeeping.
        access: Which jobs the caller sees, and where those belong that it submits.
        max_attempts: How often a job is started before a crash counts as final.
        room: How many jobs of one caller may wait, and of all callers.
        clock: Seconds since 1970; the database's by default.
    """

    def __init__(
        self,
        database: Database,
        sender: Sender | None = None,
        *,
        access: Access = EVERYTHING,
        max_attempts: int = 3,
        room: tuple[int, int] = (10_000, 100_000),
        clock: Clock | None = None,
    ) -> None:
        self.database = database
        self.access = access
        self.max_attempts = max_attempts
        self._room = room
        self.clock = clock or database.clock
        self._outbox = Outbox(database, sender, self.clock)

    def submit(
        self,
        kind: str,
        request: dict[str, Any],
        *,
        owner: str,
        idempotency_key: str | None = None,
        request_hash: str | None = None,
        id: str | None = None,
        candidates: Mapping[str, dict[str, Any]] | None = None,
    ) -> tuple[Job, bool]:
        """Queue a job, once per idempotency key and owner.

        Args:
            kind: ``"training"``, ``"dataset"``, ``"rollout"``, ``"calibration"``,
                ``"evaluation"`` or ``"sweep"``.
            request: The validated request as JSON; its ``dataset`` must exist.
            owner: Whose job it is.
            idempotency_key: The caller's name for this submission.
            request_hash: Digest of what the caller sent; of ``request`` by default.
            id: A new id under which the store has inputs of it already.
            candidates: Of a sweep: requests of trainings, by new ids. They are queued
                with it, all or none, and it waits until they have ended.

        Returns:
            The job, and whether it was there already under that key.

        Raises:
            Invalid: The key was used for another request (code
                ``idempotency_key_reused``), or the dataset does not exist.
            Conflict: A version that it names has just been deleted.
            TooManyRequests: So many jobs of this caller wait that it would be too many.
        """
        digest = request_hash or request_digest(request)
        key = idempotency_key
        id = id or new_id("job", now=self.clock())
        trained = candidates or {}
        try:
            job, queued = self._insert(id, kind, request, owner, key, digest, trained)
        except IntegrityError:
            # Another process inserted the same key between our look and our insert.
            job, queued = self._insert(id, kind, request, owner, key, digest, trained)
        if queued is not None:
            for each in queued:
                self._outbox.send(each)
        return job, queued is None

    def submitted(
        self, owner: str, key: str | None, digest: Callable[[], str]
    ) -> Job | None:
        """Return the job that was submitted under a key before, if there is one.

        To be asked before anything else of a submission is looked at: what it names
        may have been deleted since.

        Args:
            owner: Whose job it is.
            key: The idempotency key.
            digest: Gives the digest of what the caller sent; called where the key is
                known.

        Raises:
            Invalid: The key was used for another request (code
                ``idempotency_key_reused``).
        """
        if key is None:
            return None
        now = instant(self.clock())
        with self.database.reading() as connection:
            earlier = job_under(connection, owner, key, now)
        return None if earlier is None else _replay(earlier, digest())

    def get(self, id: str) -> Job:
        """Return a job.

        Raises:
            NotFound: There is none of that id.
        """
        with self.database.reading() as connection:
            return as_job(self._row(connection, id))

    def list(
        self,
        *,
        limit: int = 20,
        after: str | None = None,
        state: str | None = None,
        kind: str | None = None,
        parent: str | None = None,
    ) -> Page[Job]:
        """Return a page of jobs, newest first, of one state, kind or sweep."""
        table = tables.jobs
        query = sa.select(table).where(self.access.of(table.c.project))
        given = {"state": state, "kind": kind, "parent_id": parent}
        for name, value in given.items():
            if value is not None:
                query = query.where(table.c[name] == value)
        with self.database.reading() as connection:
            rows, following = page_of(
                connection,
                query,
                created_at=table.c.created_at,
                id=table.c.id,
                limit=limit,
                after=after,
            )
        return Page(tuple(map(as_job, rows)), following)

    def cancel(self, id: str) -> Job:
        """Cancel a queued job at once; ask the worker of a running one to stop.

        The candidates of a sweep are cancelled with it.

        Raises:
            NotFound: There is none of that id.
            Conflict: It has succeeded or failed.
        """
        now = instant(self.clock())
        with self.database.transaction() as connection:
            # Locked: it might be running for the first statement, and queued for the
            # second.
            self._row(connection, id, lock=True)
            row = cancel_row(connection, id, now)
            if row is not None:
                if row["kind"] == SWEEP:
                    for each in ids_of(connection, id, UNFINISHED):
                        self._row(connection, each, lock=True)
                        cancel_row(connection, each, now)
                return as_job(row)
            job = as_job(self._row(connection, id))
        if job.state in ("succeeded", "failed"):
            raise Conflict(
                f"job {id!r} has {job.state} and cannot be cancelled",
                code="job_failed" if job.state == "failed" else "job_succeeded",
            )
        return job

    def retry(
        self, id: str, *, owner: str = "", idempotency_key: str | None = None
    ) -> Job:
        """Queue a failed or cancelled job again, with all its attempts.

        A cancelled one goes on from its last checkpoint, a failed one starts afresh. Of
        a sweep the candidates that did not succeed are queued again.

        Args:
            id: The job's.
            owner: Who asks.
            idempotency_key: The caller's name for this retry: the job is queued once
                under it, however often it is asked for.

        Raises:
            NotFound: There is none of that id.
            Invalid: The key was used for another request (code
                ``idempotency_key_reused``).
            Conflict: It has not ended, has succeeded, or what it needs is gone.
        """
        asked = None
        if idempotency_key is not None:
            asked = Asked(owner, idempotency_key, request_digest({"retry": id}))
        try:
            job, queued = self._retry(id, asked)
        except IntegrityError:
            # Another process used the same key between our look and our insert.
            job, queued = self._retry(id, asked)
        for each in queued:
            self._outbox.send(each)
        return job

    def events(self, id: str, *, after: int = 0, limit: int = 1000) -> "list[Event]":
        """Return the events of a job with ids above ``after``, in order.

        Raises:
            NotFound: There is no such job.
        """
        return self.news(id, after=after, limit=limit)[1]

    def news(
        self, id: str, *, after: int = 0, limit: int = 1000
    ) -> "tuple[Job, list[Event]]":
        """Return a job, and its events with ids above ``after``, in order.

        Raises:
            NotFound: There is no such job.
        """
        table = tables.events
        query = sa.select(table).where(table.c.job_id == id, table.c.id > after)
        with self.database.reading() as connection:
            job = as_job(self._row(connection, id))
            rows = connection.execute(query.order_by(table.c.id).limit(limit))
            return job, [Event(**row) for row in rows.mappings()]

    def history(self, id: str) -> "list[dict[str, Any]]":
        """Return the training history of a job: the data of its metrics events.

        Raises:
            NotFound: There is no such job.
        """
        table = tables.events
        query = sa.select(table.c.data).where(
            table.c.job_id == id, table.c.kind == "metrics"
        )
        with self.database.reading() as connection:
            self._row(connection, id)
            found = connection.execute(query.order_by(table.c.id)).scalars().all()
        return [point for point in found if point is not None]

    def _row(
        self, connection: sa.Connection, id: str, *, lock: bool = False
    ) -> sa.RowMapping:
        table = tables.jobs
        mine = sa.and_(table.c.id == id, self.access.of(table.c.project))
        query = sa.select(table).where(mine)
        row = connection.execute(query.with_for_update() if lock else query)
        found = row.mappings().one_or_none()
        if found is None:
            raise NotFound("job", id)
        return found

    def _insert(
        self,
        id: str,
        kind: str,
        request: dict[str, Any],
        owner: str,
        key: str | None,
        digest: str,
        candidates: Mapping[str, dict[str, Any]],
    ) -> "tuple[Job, list[Job] | None]":
        """The job, and which to send to the workers; None where it was there before."""
        now = instant(self.clock())
        with self.database.transaction() as connection:
            # Before any row of a job is locked.
            dataset = request.get("dataset")
            is_there = hold_dataset(connection, dataset)
            if key is not None:
                free_job_key(connection, owner, key, now)
                earlier = job_under(connection, owner, key, now)
                if earlier is not None:
                    return _replay(earlier, digest), None
            check_room(connection, owner, 1 + len(candidates), *self._room)
            if dataset is not None and not is_there:
                raise no_such_dataset(dataset)
            for each in (request, *candidates.values()):
                hold_versions(connection, each)
            values = {
                "owner": owner,
                "project": self.access.project,
                "state": "queued",
                "dataset_id": dataset,
                "attempt": 1,
                "max_attempts": self.max_attempts,
                "token": 0,
                "cancel_requested": False,
                "created_at": now,
                "traceparent": traceparent(),
            }
            asked = {"id": id, "kind": kind, "request": request}
            named = {"idempotency_key": key, "request_hash": digest}
            job = _add(connection, now, **values, **asked, **named)
            queued = []
            for each, training in candidates.items():
                asked = {"id": each, "kind": "training", "request": training}
                queued.append(_add(connection, now, **values, **asked, parent_id=id))
        # A sweep waits for its candidates.
        return job, queued or [job]

    def _retry(self, id: str, asked: Asked | None) -> "tuple[Job, list[Job]]":
        """The job, and which jobs are to be sent to the workers."""
        now = instant(self.clock())
        with self.database.transaction() as connection:
            # Before the key: a row that another retry queued shows that one's key too.
            row = self._row(connection, id)
            if made_under(connection, asked, now) is not None:
                return as_job(self._row(connection, id)), []
            check_retriable(row)
            hold_dataset(connection, row["dataset_id"])
            # Before rows of jobs are locked, so also for those that may yet fail.
            for each in (row, *rows_of(connection, id).values()):
                if each["state"] != "succeeded":
                    hold_versions(connection, each["request"])
            row = self._row(connection, id, lock=True)
            if made_under(connection, asked, now) is not None:
                return as_job(row), []
            check_retriable(row)
            if row["kind"] == SWEEP:
                check_ended(connection, id)
            ids = ids_of(connection, id, RETRIABLE)
            rows = [row, *(self._row(connection, each, lock=True) for each in ids)]
            check_room(connection, row["owner"], len(rows), *self._room)
            job, *candidates = [
                queue_again(connection, each, now, self.max_attempts)
                for each in rows
                if each["state"] in RETRIABLE
            ]
            if asked is not None:
                remember(connection, asked, id, now)
        return job, candidates or [job]


def _add(connection: sa.Connection, now: datetime, **values: Any) -> Job:
    asked = (values["kind"], values["owner"], values["request"])
    place = place_of(connection, *asked, now)
    insert = sa.insert(tables.jobs).values(values | place.columns)
    row = connection.execute(insert.returning(*tables.jobs.c)).mappings().one()
    add_event(connection, row["id"], "status", "queued", now, {"state": "queued"})
    return as_job(row)


def _replay(earlier: sa.RowMapping, digest: str) -> Job:
    if earlier["request_hash"] != digest:
        raise reused(f"job {earlier['id']!r}")
    return as_job(earlier)
