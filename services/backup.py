"""A data folder as a copy that can be started, taken while services write to it.

Contents are immutable and their rows come after them. So the order is: contents,
database, contents again. What the snapshot of the database refers to was in the store
when it was taken; the second pass brings what came since the first, and the first pass
has most of what is deleted before the second. Then every reference is looked up.
Until all of that is there, the database of the backup before stays in its place.
"""

import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from services.blobs import Blobs, Damaged
from services.database import tables
from services.database.engine import BUSY_TIMEOUT_MS, Database
from services.datasets import PREFIX as DATASETS
from services.errors import Conflict, NotFound, Unavailable
from services.orphans import CHECKPOINTS
from services.results import KIND as ROLLOUT
from services.results import PREFIX as RESULTS
from services.versions import ARTIFACTS
from spnode_core.atomic import replacing

DATABASE = "spnode.db"
STORE = "store"
_PREFIXES = (ARTIFACTS, DATASETS, CHECKPOINTS, RESULTS)
_CONTENT = ".content-"
# What a backup that was killed left; and the database with what SQLite keeps beside it.
_IS_LEFT = re.compile(r"\.spnode\.db\.[0-9]+\.tmp(-wal|-shm|-journal)?|\.content-.*")
_IS_OF_BACKUP = re.compile(rf"store|spnode\.db(-wal|-shm)?|{_IS_LEFT.pattern}")


@dataclass(frozen=True)
class BackedUp:
    """What a backup holds.

    Attributes:
        path: The folder; as a data folder it is the deployment at that moment.
        contents: How many contents were copied by this backup.
        size_bytes: How large they are together.
        missing: Contents that a row names and neither the store nor the folder had
            whole: they were deleted while the backup ran, or lost before.
        damaged: Contents of the store that are not what their keys say; they were not
            copied, and what an earlier backup has of them was left.
    """

    path: str
    contents: int
    size_bytes: int
    missing: tuple[str, ...]
    damaged: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON."""
        return asdict(self)


def back_up(database: Database, blobs: Blobs, folder: Path) -> BackedUp:
    """Copy a database and what it refers to into a folder.

    Args:
        database: SQLite; a server's has tools of its own.
        blobs: The store beside it; what is read is verified.
        folder: New, or of an earlier backup, which is brought up to date: contents that
            it has already, whole, are not copied again. Where this fails, that
            backup is there as it was. Two at a time into one folder may fail.

    Raises:
        Conflict: The database is not SQLite, or the folder holds something else.
        Unavailable: The database or the store does not answer, or the disk is full.
    """
    _check(database, folder)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _sweep(folder)
    kept = Blobs((folder / STORE).absolute().as_uri())
    whole: set[str] = set()
    damaged: set[str] = set()
    with tempfile.TemporaryDirectory(prefix=_CONTENT, dir=folder) as work:
        path = Path(work) / "content"
        copied = _copy(blobs, kept, path, whole, damaged)
        with _snapshot(database, folder / DATABASE) as made:
            copied += _copy(blobs, kept, path, whole, damaged)
            named = _references(made)
            missing = tuple(sorted(k for k in named - whole if not kept.is_whole(k)))
    counts = (len(copied), sum(copied))
    return BackedUp(str(folder), *counts, missing, tuple(sorted(damaged)))


def _check(database: Database, folder: Path) -> None:
    if not database.is_sqlite:
        raise Conflict(
            "this copies SQLite; for PostgreSQL use pg_dump: docs/backup.md says how"
        )
    if folder.exists() and not folder.is_dir():
        raise Conflict(f"{folder} is a file; name a folder")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    # A folder with logs, a key or a socket is one that was started.
    if not all(_IS_OF_BACKUP.fullmatch(each.name) for each in folder.iterdir()):
        raise Conflict(f"{folder} is no backup; name a new folder")
    own = Path(database.url.database or "")
    if own.exists() and own.parent.samefile(folder):
        raise Conflict(f"{folder} is the data folder itself; name another")


def _sweep(folder: Path) -> None:
    """Delete what backups that were killed left in a folder."""
    for path in [each for each in folder.iterdir() if _IS_LEFT.fullmatch(each.name)]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _copy(
    blobs: Blobs, kept: Blobs, path: Path, whole: set[str], damaged: set[str]
) -> list[int]:
    """Copy what is not there yet or damaged there; return the sizes of the copies.

    Args:
        blobs: The store.
        kept: The folder's.
        path: A place for one content.
        whole: Keys that this backup has read in the folder or copied; more come.
        damaged: Keys whose contents are others; one of them stops no backup.
    """
    there = {key for prefix in _PREFIXES for key in kept.list(prefix)}
    copied = []
    for key in (key for prefix in _PREFIXES for key in blobs.list(prefix)):
        if key in whole or key in damaged:
            continue
        if key not in there or not kept.is_whole(key):
            try:
                blobs.download(key, path)
            except NotFound:
                continue  # Deleted since it was listed.
            except Damaged:
                damaged.add(key)
                continue
            kept.put(key, path)
            copied.append(path.stat().st_size)
        whole.add(key)
    return copied


@contextmanager
def _snapshot(database: Database, path: Path) -> Iterator[Database]:
    """Give a copy of the database as it is at one moment; whoever writes goes on.

    It takes its place when the body ends, and not where that fails. SQLite's backup
    interface would start again with every write of another process.
    """
    with replacing(path) as file:
        made = Path(file.name)
        made.chmod(0o600)
        try:
            with closing(sqlite3.connect(str(database.url.database))) as connection:
                connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
                connection.execute("VACUUM INTO ?", (str(made),))
        except sqlite3.Error as error:
            raise Unavailable("the database cannot be copied", reason=error) from error
        copy = Database(f"sqlite:///{made.absolute()}")
        try:
            yield copy
        finally:
            copy.close()
        # SQLite would add to the new file what lies beside the old one.
        for end in ("-wal", "-shm"):
            path.with_name(path.name + end).unlink(missing_ok=True)


def _references(database: Database) -> set[str]:
    """Keys of the contents that a database refers to.

    Checkpoints are none of them: a job whose checkpoint is gone starts anew.
    """
    jobs, chunks = tables.jobs.c, tables.chunks.c
    results = sa.select(jobs.id, jobs.state, jobs.request, jobs.result).where(
        jobs.kind == ROLLOUT, jobs.dropped_at.is_(None)
    )
    with database.reading() as connection:
        versions = connection.execute(sa.select(tables.versions.c.digest)).scalars()
        datasets = connection.execute(sa.select(tables.datasets.c.digest)).scalars()
        named = {f"{ARTIFACTS}/{digest}" for digest in versions}
        named |= {f"{DATASETS}/{digest}" for digest in datasets}
        of_chunks = sa.select(chunks.job_id, chunks.number, chunks.digest)
        for id, number, digest in connection.execute(of_chunks):
            named.add(f"{RESULTS}/{id}/{number:06d}/{digest}")
        for id, state, request, result in connection.execute(results):
            if request.get("inputs") is not None:
                named.add(f"{RESULTS}/{id}/inputs/{request['inputs']}")
            if state == "succeeded":
                named.add(f"{RESULTS}/{id}/index/{result['digest']}")
    return named
