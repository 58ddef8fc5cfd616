"""`./spnode registry` and `backup` as they are typed: a laptop's, then a fleet's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.folder import ROOT
from services.blobs import Blobs
from services.database.engine import Database
from services.database.migrate import upgrade
from services.registry import Registry
from services.settings import Settings
from tests.services.test_transfer import publish


def spnode(*arguments: object, folder: Path, **variables: str):
    """Run a command line on a data folder; return exit code, stdout, stderr."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SPNODE_")}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "deploy", *map(str, arguments)],
        cwd=ROOT,
        env={**kept, "SPNODE_DATA_FOLDER": str(folder), **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def laptop(tmp_path: Path):
    settings = Settings(data_folder=tmp_path / "laptop")
    database = Database(settings.database_url)
    upgrade(database)
    registry = Registry(database, Blobs(settings.store_url))
    publish(registry, tmp_path, 1)
    yield registry
    database.close()


def test_a_registry_moves_by_two_commands(laptop, tmp_path) -> None:
    archive = tmp_path / "registry.zip"
    code, said, _ = spnode("registry", "export", archive, folder=tmp_path / "laptop")
    assert (code, said) == (0, f"{archive}: 1 versions of 1 models\n")
    fleet = Settings(data_folder=tmp_path / "fleet")
    urls = ("--database", fleet.database_url, "--store", fleet.store_url)
    ours = tmp_path / "nothing"
    code, said, noted = spnode("registry", "import", archive, *urls, folder=ours)
    assert (code, said.splitlines()[0]) == (0, "added    version small/1")
    assert "1 added, 1 left as they are" in said
    assert "--aliases moves" in noted
    more = ("--aliases", "--json")
    code, said, _ = spnode("registry", "import", archive, *urls, *more, folder=ours)
    states = {each["name"]: each["state"] for each in json.loads(said)["outcomes"]}
    assert (code, states) == (0, {"small/1": "there", "small@champion": "moved"})
    assert not ours.exists()
    there = Database(fleet.database_url)
    found = Registry(there, Blobs(fleet.store_url)).resolve("small")
    there.close()
    assert found.digest == laptop.resolve("small").digest


def test_a_backup_is_a_data_folder(laptop, tmp_path) -> None:
    copy = tmp_path / "copy"
    code, said, _ = spnode("backup", copy, folder=tmp_path / "laptop")
    assert (code, said.startswith(f"{copy}: 1 contents copied")) == (0, True)
    code, said, _ = spnode("registry", "export", tmp_path / "a", "--json", folder=copy)
    models = {"small": {"versions": [1], "aliases": {"champion": 1}}}
    assert (code, json.loads(said)["models"]) == (0, models)
    version = laptop.resolve("small")
    laptop.blobs.delete(version.artifact_key)
    code, _, said = spnode("backup", tmp_path / "b", folder=tmp_path / "laptop")
    assert (code, said) == (1, f"missing: {version.artifact_key}\n")


def test_what_cannot_be_done_is_a_sentence_and_an_exit_code(laptop, tmp_path) -> None:
    folder, archive = tmp_path / "laptop", tmp_path / "registry.zip"
    code, _, said = spnode("registry", "export", archive, folder=tmp_path / "none")
    assert (code, "holds nothing" in said) == (1, True)
    assert not (tmp_path / "none").exists()
    code, _, said = spnode("registry", "import", archive, folder=folder)
    assert (code, "No such file" in said) == (1, True)
    code, _, said = spnode(
        "registry", "export", archive, "--store", "file:///x", folder=folder
    )
    assert (code, "go together" in said) == (2, True)
