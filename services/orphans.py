"""Contents of the store that nothing refers to, and how they go.

A process that is killed between putting a content and committing what refers to it
leaves the content behind. What is old enough and has no reference is deleted, under the
lock under which references are made: who made one meanwhile keeps the content, who is
about to make one finds it gone and puts it again. Checkpoints are referred to without
that lock: at worst a job begins anew.

::

    artifacts/<digest>          referred to by versions
    datasets/<digest>           referred to by datasets
    checkpoints/<job>/<digest>  by the job, until it succeeds or fails, and for a while
                                after it was cancelled, since a retry goes on from there

``results/`` are swept with their jobs, by ``services.results``.
"""

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from services.blobs import Blobs
from services.database import tables
from services.database.clock import Clock
from services.database.engine import Database
from services.database.tables import instant
from services.datasets import PREFIX as DATASETS
from services.versions import ARTIFACTS

CHECKPOINTS = "checkpoints"
_UNFINISHED = ("queued", "running")
_ENDED = ("succeeded", "failed")


class Orphans:
    """Finds and deletes what nothing refers to.

    Args:
        database: Where the references are.
        blobs: Where the contents are.
        older_than_s: Younger contents may be on their way to their reference.
        kept_s: How long the checkpoint of a cancelled job stays.
        clock: Seconds since 1970; the database's by default.
    """

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        *,
        older_than_s: float,
        kept_s: float,
        clock: Clock | None = None,
    ) -> None:
        self.database = database
        self.blobs = blobs
        self.age = timedelta(seconds=older_than_s)
        self.kept = timedelta(seconds=kept_s)
        self.clock = clock or database.clock

    def sweep(self) -> list[str]:
        """Delete every orphan; return their keys.

        Raises:
            Unavailable: The store or the database does not answer.
        """
        before = instant(self.clock()) - self.age
        self.blobs.sweep_unfinished(before)
        found = [
            (prefix, key)
            for prefix in (ARTIFACTS, DATASETS, CHECKPOINTS)
            for key in self._unreferenced(prefix, before)
        ]
        return [key for prefix, key in found if self._drop(prefix, key)]

    def drop_checkpoints(self, job_id: str) -> None:
        """Delete the checkpoints of a job that has succeeded or failed.

        Whoever retries it waits until they are gone: they are not those of the attempt
        that follows, which may be the same to the byte.

        Raises:
            Unavailable: The store or the database does not answer.
        """
        keys = list(self.blobs.list(f"{CHECKPOINTS}/{job_id}"))
        if not keys:
            return
        jobs = tables.jobs.c
        ended = sa.select(jobs.id).where(jobs.id == job_id, jobs.state.in_(_ENDED))
        with self.database.transaction() as connection:
            if connection.execute(ended.with_for_update()).first() is None:
                return
            with self.database.silent(connection):
                for key in keys:
                    self.blobs.delete(key)

    def _unreferenced(self, prefix: str, before: datetime) -> list[str]:
        """Old contents to which nothing referred a moment ago."""
        dated = self.blobs.list_dated(prefix)
        old = [key for key, written in dated if written < before]
        with self.database.reading() as connection:
            query = self._references(prefix)
            referenced = set(connection.execute(query).scalars())
        return [key for key in old if key not in referenced]

    def _drop(self, prefix: str, key: str) -> bool:
        query = self._reference(prefix, key)
        with self.database.transaction() as connection:
            self.database.lock(connection, key)
            if connection.execute(query).first() is not None:
                return False
            with self.database.silent(connection):
                self.blobs.delete(key)
        return True

    def _references(self, prefix: str) -> sa.Select[Any]:
        """The keys of all contents that a row refers to."""
        if prefix == CHECKPOINTS:
            jobs = tables.jobs.c
            key = sa.literal(f"{prefix}/").concat(jobs.id).concat("/")
            return sa.select(key.concat(jobs.checkpoint)).where(
                jobs.checkpoint.is_not(None), self._may_go_on()
            )
        table = tables.versions if prefix == ARTIFACTS else tables.datasets
        return sa.select(sa.literal(f"{prefix}/").concat(table.c.digest)).distinct()

    def _reference(self, prefix: str, key: str) -> sa.Select[tuple[str]]:
        """A query for a row that refers to a content."""
        digest = key.rsplit("/", 1)[-1]
        if prefix == CHECKPOINTS:
            jobs = tables.jobs.c
            return sa.select(jobs.id).where(
                jobs.id == key.split("/")[1],
                jobs.checkpoint == digest,
                self._may_go_on(),
            )
        table = tables.versions if prefix == ARTIFACTS else tables.datasets
        return sa.select(table.c.digest).where(table.c.digest == digest).limit(1)

    def _may_go_on(self) -> sa.ColumnElement[bool]:
        """Whether a job may still begin from its checkpoint; later it begins anew."""
        jobs, since = tables.jobs.c, instant(self.clock()) - self.kept
        is_kept = sa.and_(jobs.state == "cancelled", jobs.finished_at > since)
        return sa.or_(jobs.state.in_(_UNFINISHED), is_kept)
