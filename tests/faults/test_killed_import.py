"""`./spnode registry import` is killed in the middle, and goes on where it was."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import sqlalchemy as sa

from deploy.folder import ROOT
from services.blobs import Blobs
from services.database import tables
from services.database.engine import Database
from services.database.migrate import upgrade
from services.errors import Unavailable
from services.registry import Registry
from services.settings import Settings
from services.transfer.export import export_registry
from services.transfer.take import import_registry
from tests.services.test_transfer import publish

VERSIONS = 200


def opened(folder: Path) -> Registry:
    settings = Settings(data_folder=folder)
    return Registry(Database(settings.database_url), Blobs(settings.store_url))


def test_a_killed_import_leaves_whole_versions_and_is_completed(tmp_path: Path) -> None:
    archive, there = tmp_path / "registry.zip", tmp_path / "there"
    source = opened(tmp_path / "here")
    upgrade(source.database)
    for seed in range(VERSIONS):
        publish(source, tmp_path, seed)
    export_registry(source.database, source.blobs, archive)
    source.database.close()

    command = [sys.executable, "-P", "-m", "deploy", "registry", "import", str(archive)]
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SPNODE_")}
    taking = subprocess.Popen(
        command, cwd=ROOT, env={**kept, "SPNODE_DATA_FOLDER": str(there)}
    )
    target = opened(there)
    end = time.monotonic() + 120
    while _count(target.database) < 3:
        assert taking.poll() is None
        assert time.monotonic() < end
    taking.send_signal(signal.SIGKILL)
    assert taking.wait(30) == -signal.SIGKILL, "it was in the middle"

    before = _count(target.database)
    assert 3 <= before < VERSIONS
    _check_whole(target)
    found = import_registry(target.database, target.blobs, archive)
    states = [each.state for each in found.outcomes if each.what == "version"]
    assert states == ["there"] * before + ["added"] * (VERSIONS - before)
    assert _count(target.database) == VERSIONS
    _check_whole(target)
    assert len(list(target.blobs.list("artifacts"))) == VERSIONS
    target.database.close()


def _count(database: Database) -> int:
    """Versions there; none before there are tables."""
    query = sa.select(sa.func.count()).select_from(tables.versions)
    with contextlib.suppress(Unavailable), database.reading() as connection:
        return connection.execute(query).scalar_one()
    return 0


def _check_whole(registry: Registry) -> None:
    """Every version has its artifact, and every artifact is what its name says."""
    with registry.database.reading() as connection:
        digests = connection.execute(sa.select(tables.versions.c.digest)).scalars()
        named = {f"artifacts/{digest}" for digest in digests}
    keys = set(registry.blobs.list("artifacts"))
    assert named <= keys
    for key in keys:
        registry.blobs.verify(key)
