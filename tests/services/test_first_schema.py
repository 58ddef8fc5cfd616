"""A data folder of the first schema opens after every migration.

`data/first_schema/spnode.sql` says how the folder was made. A new migration is tested
here without another line: what the folder holds must be there afterwards, and work.
"""

import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from services.blobs import Blobs
from services.database.engine import Database
from services.database.migrate import fits, upgrade
from services.database.tables import metadata
from services.datasets import Datasets
from services.jobs import Jobs
from services.keys import Keys
from services.leases import Leases
from services.registry import Registry
from services.settings import Settings
from services.transfer.export import export_registry
from services.transfer.take import import_registry
from spnode_core.artifact import load
from spnode_core.dataset import load_dataset

jax.config.update("jax_enable_x64", True)

FOLDER = Path(__file__).parent / "data" / "first_schema"
SECRET = "spn_aethmt9ap553_AWPh5RolKtqeAOjg9wOVjL2OIGAgoA6MenTCEhuaUP4"
PUBLISHED = "job_01m8d6mxqn8v40ycd893eqjvkx"
QUEUED = "job_01m8d6n78nf6rs5c11r9gkks6d"
CLAIMED = "job_01m8d6n78q7asqqvsbvjzn5xky"
LATER = 1_800_000_000.0
SOON = 1_795_740_000.0
"""While its idempotency key is remembered: 2026-11-27 00:40, minutes after it was made."""
# What the code that made the folder computed.
X0, TIMES = [[0.5, 1e-5, 0.5]], [1e-3, 1.0, 500.0]
X = [
    [
        [0.48068380445638054, 7.500525693356204e-06, 0.5193186950179262],
        [0.6047328155933605, 1.2093079161039056e-05, 0.39526509132747856],
        [0.5718995968897623, 1.505357196213619e-05, 0.42809534953827555],
    ]
]


@pytest.fixture
def opened(settings: Settings):
    """The folder, as a stack of this version opens it."""
    shutil.copytree(FOLDER / "store", settings.data_folder / "store")
    with closing(sqlite3.connect(settings.data_folder / "spnode.db")) as made:
        made.executescript((FOLDER / "spnode.sql").read_text())
    database = Database(settings.database_url)
    assert not fits(database), "it is of the first schema"
    upgrade(database)
    yield database, Blobs(settings.store_url), settings
    database.close()


def test_its_tables_become_those_of_this_version(opened) -> None:
    database, _, _ = opened
    assert fits(database)
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        found = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        assert (found, connection.exec_driver_sql("PRAGMA quick_check").scalar()) == (
            [],
            "ok",
        )


def test_its_version_loads_and_repeats_its_rollout(opened, tmp_path) -> None:
    database, blobs, _ = opened
    registry = Registry(database, blobs)
    version = registry.resolve("small")
    assert (version.number, version.job_id) == (1, PUBLISHED)
    assert [move.number for move in registry.aliases.history("small", "champion")] == [
        1
    ]
    path = tmp_path / "artifact.spnode"
    registry.download(version, path)
    surrogate = load(path, digest=version.digest)
    x = surrogate.rollout(np.array(X0), np.array(TIMES))
    # Loading has repeated the recorded rollout; states differ in scale by 1e5.
    np.testing.assert_allclose(x, X, rtol=1e-9)
    assert surrogate.spec.model_dump(mode="json").items() >= version.spec.items()


def test_its_registry_moves_to_another(opened, elsewhere, tmp_path) -> None:
    database, blobs, _ = opened
    export_registry(database, blobs, tmp_path / "registry.zip", datasets=True)
    found = import_registry(
        elsewhere.database,
        elsewhere.blobs,
        tmp_path / "registry.zip",
        aliases=True,
        datasets=True,
    )
    assert [each.state for each in found.outcomes] == ["added", "added", "moved"]
    kept = Registry(database, blobs).resolve("small")
    assert elsewhere.resolve("small") == replace(kept, job_id=None)


def test_its_jobs_dataset_and_key_are_there(opened, tmp_path) -> None:
    database, blobs, settings = opened
    jobs, leases = Jobs(database), Leases(database, clock=lambda: LATER)
    states = {job.id: job.state for job in jobs.list().items}
    assert states == {PUBLISHED: "succeeded", QUEUED: "queued", CLAIMED: "running"}
    assert leases.reap() == [CLAIMED], "its worker is long gone"
    for id in (QUEUED, CLAIMED):
        claim = leases.claim(jobs.get(id).queue, "worker")
        assert claim is not None
        assert claim.job.id == id
    request = jobs.get(PUBLISHED).request
    again, was_there = Jobs(database, clock=lambda: SOON).submit(
        "training", request, owner="tests", idempotency_key="first"
    )
    assert (again.id, was_there) == (PUBLISHED, True)
    Datasets(database, blobs, settings).download(request["dataset"], tmp_path / "d.npz")
    assert load_dataset(tmp_path / "d.npz").names == ("a", "b", "c")
    key = Keys(database).verify(SECRET)
    assert key is not None
    assert key.name == "first"
