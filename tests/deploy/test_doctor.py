"""What the doctor says of the services that the settings name."""

from pathlib import Path

import pytest

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
