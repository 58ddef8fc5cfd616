"""The datasets of an archive, under the ids that the cards of versions name."""

from pathlib import Path

import sqlalchemy as sa

from services.blobs import Blobs
from services.database import tables
from services.database.engine import Database
from services.errors import Conflict, Invalid, Unavailable
from services.transfer.manifest import DATASETS, DatasetContent, DatasetEntry, unfit
from services.transfer.members import AbstractReader
from services.transfer.outcome import Outcome


def take_datasets(
    database: Database, blobs: Blobs, archive: AbstractReader, path: Path
) -> list[Outcome]:
    """Take the datasets of an archive that are not here yet.

    Args:
        database: Where the rows go.
        blobs: Where the contents go.
        archive: What is read.
        path: A place for one content.
    """
    return [
        _take(database, blobs, archive, each, path)
        for each in archive.manifest.datasets
    ]


def _take(
    database: Database,
    blobs: Blobs,
    archive: AbstractReader,
    entry: DatasetEntry,
    path: Path,
) -> Outcome:
    key = f"{DATASETS}/{entry.digest}"
    try:
        with database.reading() as connection:
            if _is_there(connection, entry):
                return Outcome("dataset", entry.id, "there")
        content = archive.record(DatasetContent, entry.record)
        archive.extract(DATASETS, entry.digest, path)
        found = (content.id, content.digest, content.size_bytes)
        expected = (entry.id, entry.digest, path.stat().st_size)
        if found != expected:
            raise unfit(
                f"records/{entry.record}", found=f"{found}", expected=f"{expected}"
            )
        blobs.put(key, path)
        with database.transaction() as connection:
            database.lock(connection, key)
            if _is_there(connection, entry):
                return Outcome("dataset", entry.id, "there")
            with database.silent(connection):
                is_kept = blobs.exists(key)
            row = {**dict(content), "job_id": None}
            connection.execute(sa.insert(tables.datasets).values(row))
            if not is_kept:
                raise Unavailable(f"the content of {entry.id} was deleted meanwhile")
    except (Invalid, Conflict) as error:
        return Outcome("dataset", entry.id, "refused", error.message)
    return Outcome("dataset", entry.id, "added")


def _is_there(connection: sa.Connection, entry: DatasetEntry) -> bool:
    table = tables.datasets
    query = sa.select(table.c.digest).where(table.c.id == entry.id)
    digest = connection.execute(query).scalar_one_or_none()
    if digest not in (None, entry.digest):
        raise Conflict(
            f"{entry.id} is another dataset here: its content has SHA-256 {digest}, "
            f"that of the archive {entry.digest}",
            code="dataset_differs",
        )
    return digest is not None
