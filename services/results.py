"""Results that are too large for one answer: chunks in the store, each with a row.

::

    results/<job>/inputs/<digest>     what the caller sent, as npz
    results/<job>/<number>/<digest>   the answer for some rows, as npz
    results/<job>/index/<digest>      what they are together, as JSON; written last

A chunk's row is committed after its content and by the worker that holds the job, so
what has a row is whole. Everything goes some days after the job has ended.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from services.blobs import Blobs
from services.database import tables
from services.database.clock import Clock
from services.database.engine import Database
from services.database.tables import instant
from services.errors import Conflict, Gone, NotFound
from services.identity import new_id
from services.lifecycle import TERMINAL, Job, as_job
from services.settings import Settings

PREFIX = "results"
KIND = "rollout"
_ID = re.compile(r"^job_[0-9a-z]{26}$")


@dataclass(frozen=True)
class Chunk:
    """Some rows of a result.

    Args:
        number: Its place, from 0.
        start: Its first row.
        rows: How many there are.
        digest: SHA-256 of its file.
        size_bytes: Size of its file.
        failed: How many rows left the finite range.
        outside: How many rows lie outside the training domain.
    """

    number: int
    start: int
    rows: int
    digest: str
    size_bytes: int
    failed: int = 0
    outside: int = 0

    def key(self, job_id: str) -> str:
        """Where its file lies in the store."""
        return f"{PREFIX}/{job_id}/{self.number:06d}/{self.digest}"


class Results:
    """The results of rollout jobs.

    Args:
        database: Where the rows of chunks are.
        blobs: Where the contents are.
        settings: How long a result is kept.
        clock: Seconds since 1970; the database's by default.
    """

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        settings: Settings,
        *,
        clock: Clock | None = None,
    ) -> None:
        self.database = database
        self.blobs = blobs
        self.kept = timedelta(seconds=settings.result_keep_seconds)
        # Inputs come to the store before their job comes to the database.
        self.orphan_s = settings.orphan_seconds
        self.clock = clock or database.clock

    def put_inputs(self, job_id: str, path: Path) -> str:
        """Keep the file that a caller sent for a job; return its digest."""
        return self.blobs.put_content(f"{PREFIX}/{job_id}/inputs", path)

    def download_inputs(self, job_id: str, digest: str, path: Path) -> None:
        """Write the file that a caller sent to ``path``.

        Raises:
            NotFound: It has been deleted.
        """
        self.blobs.download(f"{PREFIX}/{job_id}/inputs/{digest}", path)

    def put_chunk(self, job_id: str, chunk: Chunk, path: Path) -> None:
        """Keep the content of a chunk; its row is another step."""
        self.blobs.put(chunk.key(job_id), path)

    def add_chunk(self, connection: sa.Connection, job_id: str, chunk: Chunk) -> None:
        """Add the row of a chunk, in a transaction that has checked the claim."""
        values = {"job_id": job_id, **asdict(chunk)}
        connection.execute(sa.insert(tables.chunks).values(values))

    def forget_chunks(
        self, connection: sa.Connection, job_id: str, chunks: Iterable[Chunk]
    ) -> None:
        """Delete the rows of chunks, in a transaction that has checked the claim."""
        table = tables.chunks
        numbers = [chunk.number for chunk in chunks]
        connection.execute(
            sa.delete(table).where(
                table.c.job_id == job_id, table.c.number.in_(numbers)
            )
        )

    def chunks(self, job_id: str) -> list[Chunk]:
        """The chunks that a job has made so far, in order."""
        table = tables.chunks
        query = sa.select(table).where(table.c.job_id == job_id)
        with self.database.reading() as connection:
            rows = connection.execute(query.order_by(table.c.number)).mappings().all()
        return [_as_chunk(row) for row in rows]

    def is_whole(self, job_id: str, chunk: Chunk) -> bool:
        """Whether the store has a chunk, byte for byte."""
        return self.blobs.is_whole(chunk.key(job_id))

    def put_index(self, job_id: str, index: dict[str, Any]) -> str:
        """Keep what the chunks are together; return its digest."""
        content = json.dumps(index, allow_nan=False).encode()
        return self.blobs.put_content(f"{PREFIX}/{job_id}/index", content)

    def index(self, job: Job) -> dict[str, Any]:
        """What a job's chunks are together, and when they are deleted.

        Raises:
            NotFound: Its kind has no such result.
            Conflict: It has not succeeded (code ``result_not_ready``).
            Gone: Its result has been deleted.
        """
        digest = index_digest(job)
        try:
            content = self.blobs.get(f"{PREFIX}/{job.id}/index/{digest}")
        except NotFound:
            self._check_kept(job.id)
            raise
        return {**json.loads(content), "expires_at": self.expires_at(job)}

    def chunk(self, job: Job, number: int) -> Chunk:
        """One chunk of a job's result.

        Raises:
            NotFound: There is none of that number, or no such result.
            Conflict: The job has not succeeded (code ``result_not_ready``).
            Gone: The result has been deleted.
        """
        index_digest(job)
        table = tables.chunks
        query = sa.select(table).where(
            table.c.job_id == job.id, table.c.number == number
        )
        with self.database.reading() as connection:
            row = connection.execute(query).mappings().one_or_none()
        if row is None:
            self._check_kept(job.id)
            count = (job.result or {}).get("chunks")
            hint = f"job {job.id!r} has {count}, counted from 0"
            raise NotFound("chunk", str(number), hint=hint)
        return _as_chunk(row)

    def _check_kept(self, id: str) -> None:
        """Say so where what is not found was deleted since its job was read.

        Raises:
            Gone: It was.
        """
        query = sa.select(tables.jobs).where(tables.jobs.c.id == id)
        with self.database.reading() as connection:
            index_digest(as_job(connection.execute(query).mappings().one()))

    def expires_at(self, job: Job) -> str | None:
        """When the result of an ended job is deleted, RFC 3339."""
        if job.finished_at is None:
            return None
        return (job.finished_at + self.kept).isoformat()

    def drop(self, job_id: str) -> None:
        """Delete the result and the inputs of a job that has ended.

        Raises:
            NotFound: There is no such job, or its kind has no such result.
            Conflict: It has not ended (code ``job_not_ended``).
        """
        with self.database.transaction() as connection:
            job = _locked(connection, job_id)
            if job is None:
                raise NotFound("job", job_id)
            if job.kind != KIND:
                raise _no_result(job)
            if job.state not in TERMINAL:
                raise Conflict(
                    f"job {job_id!r} is {job.state}; cancel it before its result is "
                    "deleted",
                    code="job_not_ended",
                )
            self._mark(connection, job)
        self.delete_contents(job_id)

    def sweep(self) -> list[str]:
        """Delete what is due: results that are old enough, contents of no job.

        Returns:
            Ids of the jobs whose contents were deleted.
        """
        found = {key.split("/")[1] for key in self.blobs.list(PREFIX)}
        due = [id for id in sorted(found) if _ID.match(id) and self._is_due(id)]
        for id in due:
            self.delete_contents(id)
        return due

    def delete_contents(self, job_id: str) -> None:
        """Delete all that the store has of a job's result and inputs."""
        for key in list(self.blobs.list(f"{PREFIX}/{job_id}")):
            self.blobs.delete(key)

    def _is_due(self, job_id: str) -> bool:
        now = self.clock()
        with self.database.transaction() as connection:
            job = _locked(connection, job_id)
            if job is None:
                # Ids sort by the time when they were made.
                return job_id < new_id("job", now=now - self.orphan_s)
            if job.dropped_at is not None:
                return True
            if job.finished_at is None or job.finished_at + self.kept > instant(now):
                return False
            self._mark(connection, job)
        return True

    def _mark(self, connection: sa.Connection, job: Job) -> None:
        jobs, chunks = tables.jobs, tables.chunks
        now: datetime = instant(self.clock())
        connection.execute(
            sa.update(jobs).where(jobs.c.id == job.id).values(dropped_at=now)
        )
        connection.execute(sa.delete(chunks).where(chunks.c.job_id == job.id))


def index_digest(job: Job) -> str:
    """Digest of the index of a job's result.

    Raises:
        NotFound: Its kind has no such result.
        Conflict: It has not succeeded (code ``result_not_ready``).
        Gone: Its result has been deleted.
    """
    if job.kind != KIND:
        raise _no_result(job)
    if job.dropped_at is not None:
        raise Gone(
            f"the result of job {job.id!r} was deleted at {job.dropped_at.isoformat()}",
            code="result_dropped",
        )
    if job.state != "succeeded":
        raise Conflict(
            f"job {job.id!r} is {job.state}; its result is there when it has succeeded",
            code="result_not_ready",
        )
    assert job.result is not None, "a job succeeds with a result"
    return job.result["digest"]


def _no_result(job: Job) -> NotFound:
    hint = f"a {job.kind} job says what it made in the field `result` of its record"
    return NotFound("result in the store of job", job.id, hint=hint)


def _locked(connection: sa.Connection, id: str) -> Job | None:
    query = sa.select(tables.jobs).where(tables.jobs.c.id == id).with_for_update()
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else as_job(row)


def _as_chunk(row: sa.RowMapping) -> Chunk:
    return Chunk(**{name: row[name] for name in Chunk.__dataclass_fields__})
