"""What the doctor says of the services that the settings name."""

import socket
import types
from pathlib import Path

import pytest
import sqlalchemy as sa

from deploy import doctor
from deploy.doctor import Finding, examine
from deploy.folder import Folder
from services.database.engine import Database
from services.database.migrate import upgrade


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Examine with some URLs set; the findings by name."""

    def look(**urls: str) -> dict[str, Finding]:
        for name, url in urls.items():
            monkeypatch.setenv(f"SPNODE_{name.upper()}_URL", url)
        return {each.name: each for each in examine(Folder(tmp_path / "data"))}

    return look


def test_services_that_do_not_answer_are_found(look, tmp_path) -> None:
    (tmp_path / "file").touch()
    found = look(
        redis="redis://127.0.0.1:1/0",
        database="postgresql+psycopg://me@127.0.0.1:1/x",
        store=f"file://{tmp_path / 'file' / 'store'}",
    )
    for name, setting, words in (
        ("broker", "SPNODE_REDIS_URL", "the queue does not answer"),
        ("database", "SPNODE_DATABASE_URL", "Connection refused"),
        ("store", "SPNODE_STORE_URL", "Not a directory"),
    ):
        assert found[name].level == "fail"
        assert words in found[name].found
        assert setting in found[name].remedy


def test_services_that_answer_are_found_too(look, tmp_path) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    found = look(database=url, store=f"file://{tmp_path / 'store'}")
    assert {found[name].level for name in ("broker", "database", "store")} == {"ok"}
    assert "brings its schema" in found["database"].found
    database = Database(url)
    upgrade(database)
    database.close()
    assert look()["database"].found == "SPNODE_DATABASE_URL answers"


@pytest.fixture
def find(tmp_path: Path):
    """One finding; what comes after it is not looked at."""

    def find(name: str) -> Finding:
        findings = examine(Folder(tmp_path / "data"))
        return next(each for each in findings if each.name == name)

    return find


def test_a_wrong_setting_is_explained_and_the_rest_is_looked_at(find, monkeypatch):
    monkeypatch.setenv("SPNODE_PORT", "abc")
    for name in ("settings", "port"):
        found = find(name)
        assert found.level == "fail"
        assert found.found.startswith("SPNODE_PORT='abc'")
    assert find("store").level == "ok"


@pytest.mark.parametrize("version", ["0.10.2", "0.11.0", "0.11.1"])
def test_a_jax_whose_solves_may_stand_still_is_named(find, monkeypatch, version):
    assert find("packages").level == "ok"
    real = doctor.metadata.version
    known = lambda name: version if name == "jax" else real(name)  # noqa: E731
    monkeypatch.setattr(doctor.metadata, "version", known)
    found = find("packages")
    assert (found.level, f"jax {version}" in found.found) == ("fail", True)
    assert ".venv" in found.remedy


def test_a_check_that_fails_unexpectedly_is_a_finding(find, monkeypatch):
    def broken(_):
        raise RuntimeError("no such thing\nat all")

    monkeypatch.setattr(doctor.shutil, "disk_usage", broken)
    found = find("disk")
    assert (found.level, found.found) == ("fail", "RuntimeError: no such thing")
    assert find("broker").name == "broker"


def test_the_database_of_the_data_folder_is_opened(find, tmp_path):
    file = tmp_path / "data" / "spnode.db"
    assert "`up` makes one" in find("database").found
    file.parent.mkdir()
    file.touch()
    assert find("database").found.startswith(f"{file}; the next process")
    database = Database(f"sqlite:///{file}")
    upgrade(database)
    assert find("database").found == str(file)
    with database.transaction() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = 'x'"))
        connection.execute(sa.text("DROP TABLE IF EXISTS compatibility"))
    database.close()
    newer = find("database")
    assert (newer.level, "newer version" in newer.found) == ("fail", True)
    file.write_bytes(b"no database, but long enough for a header" * 30)
    for rest in tmp_path.glob("data/spnode.db-*"):
        rest.unlink()
    broken = find("database")
    assert (broken.level, "not a database" in broken.found) == ("fail", True)
    assert "backup" in broken.remedy


def test_the_store_of_the_data_folder_is_written_to(find, tmp_path):
    store = tmp_path / "data" / "store"
    store.mkdir(parents=True)
    assert (find("store").level, list(store.iterdir())) == ("ok", [])
    store.rmdir()
    store.touch()
    found = find("store")
    assert (found.level, "Not a directory" in found.found) == ("fail", True)


def test_a_port_that_is_taken_is_told(find, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("SPNODE_PORT", str(taken.getsockname()[1]))
        found = find("port")
        assert (found.level, "is taken on" in found.found) == ("warn", True)
        assert "SPNODE_PORT" in found.remedy
    assert find("port").level == "ok"


@pytest.mark.parametrize(
    ("free", "level"), [(2**29, "fail"), (3 * 2**30, "warn"), (2**40, "ok")]
)
def test_a_disk_that_fills_up_is_told(find, monkeypatch, free, level):
    usage = types.SimpleNamespace(free=free)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)
    assert find("disk").level == level


def test_a_gpu_that_jax_does_not_use_is_told(find, monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert find("devices").level == "ok"
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = find("devices")
    assert (found.level, "gpu" in found.remedy) == ("warn", True)
