"""Datasets: uploaded or generated, checked, kept by content under a record each.

A dataset is parsed by an expendable process and kept in the canonical form that it
writes. Records of the same content share one blob, which goes with the last of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from services.blobs import Blobs
from services.database import tables
from services.database.clock import Clock
from services.database.engine import Database
from services.database.idempotency import Asked, made_under, remember, request_digest
from services.database.paging import Page, page_of
from services.database.tables import instant
from services.errors import (
    Conflict,
    ContentGone,
    Gone,
    Invalid,
    NotFound,
)
from services.identity import new_id, sha256
from services.parsing import parse
from services.projects import EVERYTHING, Access
from services.settings import Settings
from services.work_folder import working

PREFIX = "datasets"
DATASET_PATTERN = r"^ds_[0-9a-z]{26}$"
"""Of ids."""


@dataclass(frozen=True)
class DatasetRecord:
    """A dataset in the store; ``summary`` is that of ``spnode_core.summarise``."""

    id: str
    owner: str
    project: str
    """Who sees it."""
    name: str | None
    digest: str
    """SHA-256 of the stored file."""
    size_bytes: int
    summary: dict[str, Any]
    job_id: str | None
    """The job that generated it, if one did."""
    created_at: datetime

    @property
    def key(self) -> str:
        """Of its content in the store."""
        return f"{PREFIX}/{self.digest}"

    @property
    def states(self) -> tuple[str, ...]:
        """Names of the states."""
        return tuple(self.summary["states"])

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return tuple(self.summary["parameters"])

    @property
    def controls(self) -> tuple[str, ...]:
        """Names of the controls."""
        return tuple(self.summary["controls"])

    @property
    def trajectories(self) -> int:
        """Number of trajectories."""
        return int(self.summary["trajectories"])

    @property
    def samples(self) -> tuple[int, int]:
        """Samples of the shortest trajectory and of the longest."""
        shortest, longest = self.summary["samples_per_trajectory"]
        return shortest, longest


def no_such_dataset(id: str) -> Invalid:
    """What a request is told whose ``/dataset`` does not exist."""
    return Invalid(
        "/dataset",
        found=f"{id!r}, which does not exist",
        expected="the id of a dataset; GET /v1/datasets lists them",
        code="dataset_not_found",
    )


class Datasets:
    """The datasets of a deployment.

    Args:
        database: Where the records are.
        blobs: Where the contents are.
        settings: Limits of an upload, and the folder to work in.
        access: Which datasets the caller sees, and where those belong that it makes.
        clock: Seconds since 1970; the database's by default.
    """

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        settings: Settings,
        *,
        access: Access = EVERYTHING,
        clock: Clock | None = None,
    ) -> None:
        self.database = database
        self.blobs = blobs
        self.settings = settings
        self.access = access
        self.clock = clock or database.clock

    def upload(
        self,
        path: Path,
        *,
        owner: str,
        name: str | None = None,
        idempotency_key: str | None = None,
    ) -> tuple[DatasetRecord, bool]:
        """Check an uploaded file and keep it, once per idempotency key and owner.

        Args:
            path: The file as it was sent; it may be anything.
            owner: Whose it is.
            name: What people call it.
            idempotency_key: The caller's name for this upload.

        Returns:
            The record, and whether it was there already under that key.

        Raises:
            Invalid: What is wrong with the file, or the key was used for another one
                (code ``idempotency_key_reused``).
            Gone: What was uploaded under that key has been deleted.
        """
        if idempotency_key is None:
            return self.add(path, owner=owner, name=name), False
        digest = request_digest({"name": name, "content": sha256(path)})
        asked = Asked(owner, idempotency_key, digest)
        with self.database.reading() as connection:
            earlier = made_under(connection, asked, instant(self.clock()))
        if earlier is not None:
            return self._earlier(earlier), True
        return self.add(path, owner=owner, name=name, asked=asked), False

    def add(
        self,
        path: Path,
        *,
        owner: str,
        name: str | None = None,
        asked: Asked | None = None,
    ) -> DatasetRecord:
        """Check an uploaded file and keep it.

        Args:
            path: The file as it was sent; it may be anything.
            owner: Whose it is.
            name: What people call it, at most 200 characters.
            asked: The request, where it has a key: what another has kept under it
                meanwhile is returned.

        Raises:
            Invalid: What is wrong with it, where, and what belongs there; nothing is
                kept.
        """
        if name is not None and not 1 <= len(name) <= 200:
            raise Invalid("name", found=repr(name), expected="1 to 200 characters")
        with working(self.settings, "upload") as folder:
            canonical = folder / "dataset.npz"
            summary = parse(path, canonical, self.settings)
            size = canonical.stat().st_size
            values = {"size_bytes": size, "summary": summary}
            values |= {"owner": owner, "name": name}
            try:
                return self._put(asked, canonical, values)
            except (IntegrityError, ContentGone):
                # Between our look and our insert another used the same key, or was
                # refused the same content and deleted it.
                return self._put(asked, canonical, values)

    def register(
        self,
        connection: sa.Connection,
        *,
        digest: str,
        size_bytes: int,
        summary: dict[str, Any],
        owner: str,
        name: str | None = None,
        job_id: str | None = None,
        project: str | None = None,
        guard: Callable[[], None] | None = None,
    ) -> DatasetRecord:
        """Make the record of a content that the store has, in a caller's transaction.

        ``guard`` is called before the record is made, once the store has answered:
        nobody who needs a row that it locks waits for the store.

        Raises:
            ContentGone: It was deleted meanwhile; put it again.
        """
        seconds = self.clock()
        record = DatasetRecord(
            id=new_id("ds", now=seconds),
            owner=owner,
            project=project or self.access.project,
            name=name,
            digest=digest,
            size_bytes=size_bytes,
            summary=summary,
            job_id=job_id,
            created_at=instant(seconds),
        )
        key = f"{PREFIX}/{digest}"
        self.database.lock(connection, key)
        with self.database.silent(connection):
            is_kept = self.blobs.exists(key)
        if guard is not None:
            guard()
        connection.execute(sa.insert(tables.datasets).values(vars(record)))
        if not is_kept:
            raise ContentGone(
                f"the content {digest} of a dataset was deleted meanwhile"
            )
        return record

    def get(self, id: str) -> DatasetRecord:
        """Return the record of a dataset.

        Raises:
            NotFound: There is none of that id.
        """
        table = tables.datasets
        mine = sa.and_(table.c.id == id, self.access.of(table.c.project))
        query = sa.select(table).where(mine)
        with self.database.reading() as connection:
            row = connection.execute(query).mappings().one_or_none()
        if row is None:
            raise NotFound("dataset", id, hint="GET /v1/datasets lists them")
        return DatasetRecord(**row)

    def asked(self, id: str) -> DatasetRecord:
        """Return the record of the dataset that a request names in ``/dataset``.

        Raises:
            Invalid: There is none of that id.
        """
        try:
            return self.get(id)
        except NotFound as error:
            raise no_such_dataset(id) from error

    def list(self, *, limit: int = 20, after: str | None = None) -> Page[DatasetRecord]:
        """Return a page of datasets, newest first."""
        table = tables.datasets
        with self.database.reading() as connection:
            rows, following = page_of(
                connection,
                sa.select(table).where(self.access.of(table.c.project)),
                created_at=table.c.created_at,
                id=table.c.id,
                limit=limit,
                after=after,
            )
        return Page(tuple(DatasetRecord(**row) for row in rows), following)

    def download(self, id: str, path: Path) -> None:
        """Write the npz file of a dataset to ``path``.

        Raises:
            NotFound: There is none of that id.
        """
        self.blobs.download(self.get(id).key, path)

    def delete(self, id: str) -> None:
        """Delete a dataset, and its content unless another record shares it.

        Raises:
            NotFound: There is none of that id.
            Conflict: A queued or running job uses it (code ``dataset_in_use``).
        """
        table, jobs = tables.datasets, tables.jobs
        mine = sa.and_(table.c.id == id, self.access.of(table.c.project))
        locked = sa.select(table.c.digest).where(mine).with_for_update()
        using = sa.select(jobs.c.id).where(
            jobs.c.dataset_id == id, jobs.c.state.in_(("queued", "running"))
        )
        with self.database.transaction() as connection:
            digest = connection.execute(locked).scalar_one_or_none()
            if digest is None:
                raise NotFound("dataset", id)
            job = connection.execute(using.limit(1)).scalar_one_or_none()
            if job is not None:
                raise Conflict(
                    f"job {job!r} uses dataset {id!r}; wait for it or cancel it",
                    code="dataset_in_use",
                )
            connection.execute(sa.delete(table).where(table.c.id == id))
        self.drop_content(digest)

    def drop_content(self, digest: str) -> None:
        """Delete a content that no record refers to any more."""
        table, key = tables.datasets, f"{PREFIX}/{digest}"
        query = sa.select(table.c.id).where(table.c.digest == digest).limit(1)
        with self.database.transaction() as connection:
            self.database.lock(connection, key)
            if connection.execute(query).one_or_none() is None:
                with self.database.silent(connection):
                    self.blobs.delete(key)

    def _put(
        self, asked: Asked | None, path: Path, values: dict[str, Any]
    ) -> DatasetRecord:
        """Put a file into the store and keep its record, or neither."""
        digest = self.blobs.put_content(PREFIX, path)
        try:
            return self._keep(asked, {"digest": digest, **values})
        except BaseException:
            self.drop_content(digest)
            raise

    def _keep(self, asked: Asked | None, values: dict[str, Any]) -> DatasetRecord:
        """Make the record, or find the one that the key has."""
        with self.database.transaction() as connection:
            # First: who waits for it in ``register`` would not see the key of another.
            self.database.lock(connection, f"{PREFIX}/{values['digest']}")
            earlier = None
            if asked is not None:
                earlier = made_under(connection, asked, instant(self.clock()))
            if earlier is None:
                record = self.register(connection, **values)
                if asked is not None:
                    remember(connection, asked, record.id, record.created_at)
                return record
        return self._earlier(earlier)

    def _earlier(self, id: str) -> DatasetRecord:
        try:
            return self.get(id)
        except NotFound as error:
            raise Gone(
                f"dataset {id!r}, which was uploaded under this Idempotency-Key, has "
                "been deleted; upload it again under a new key",
                code="dataset_deleted",
            ) from error
