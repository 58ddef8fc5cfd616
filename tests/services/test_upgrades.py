"""Versions side by side: what a migration may do, and what an older process makes of it."""

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory

from services.database import tables
from services.database.engine import Database
from services.database.migrate import configuration, fits, upgrade
from services.errors import Unavailable
from tests.api.deployment import deployed, opened, wait_for

NEWER = "9999"
MADE = {"kind": "dataset", "system": "transient_growth", "trajectories": 2, "seed": 0}
FIRST, *LATER = [
    each.revision
    for each in reversed(
        list(ScriptDirectory.from_config(configuration()).walk_revisions())
    )
]


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request, tmp_path):
    """A database of each kind, without tables."""
    is_sqlite = request.param == "sqlite"
    postgres = None if is_sqlite else request.getfixturevalue("postgres_url")
    database = Database(postgres or f"sqlite:///{tmp_path}/spnode.db")
    yield database
    database.close()


def stamp(database, *, since: str) -> None:
    """The schema of a version to come: it adds, and says with what it works."""
    with database.transaction() as connection:
        run = connection.exec_driver_sql
        run(f"UPDATE alembic_version SET version_num = '{NEWER}'")
        run(f"UPDATE compatibility SET since = '{since}'")


def add(database) -> None:
    with database.transaction() as connection:
        run = connection.exec_driver_sql
        run("ALTER TABLE jobs ADD COLUMN mood VARCHAR(9) DEFAULT 'good' NOT NULL")
        run("ALTER TABLE models ADD COLUMN colour VARCHAR(9)")
        run("CREATE TABLE moods (name VARCHAR(9) PRIMARY KEY)")


def columns(connection) -> dict[tuple[str, str], tuple[str, bool, bool]]:
    """Of each column its type, whether it may be null, and whether it has a default."""
    found = sa.inspect(connection)
    return {
        (table, each["name"]): (
            str(each["type"]),
            bool(each["nullable"]),
            each["default"] is not None or bool(each.get("autoincrement") is True),
        )
        for table in found.get_table_names()
        for each in found.get_columns(table)
    }


def test_a_migration_leaves_what_the_version_before_needs(empty_database) -> None:
    config = configuration()
    with empty_database.transaction() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, FIRST)
        before = columns(connection)
        for revision in LATER:
            command.upgrade(config, revision)
            after = columns(connection)
            if sa.inspect(connection).has_table(tables.compatibility.name):
                since = connection.scalar(sa.select(tables.compatibility.c.since))
                if since == revision:
                    before = after  # it says that it does not
                    continue
            known = {table for table, _ in before}
            for column, (kind, may_be_null, _) in before.items():
                assert column in after, (revision, column)
                assert after[column][:2] == (kind, may_be_null), (revision, column)
            for column in after.keys() - before.keys():
                _, may_be_null, has_default = after[column]
                is_in_new_table = column[0] not in known
                assert is_in_new_table or may_be_null or has_default, (revision, column)
            before = after


def test_the_files_of_migrations_are_named_by_their_revisions() -> None:
    # By these names a process knows what it needs, without Alembic.
    scripts = ScriptDirectory.from_config(configuration())
    for each in scripts.walk_revisions():
        assert Path(each.path).name.startswith(f"{each.revision}_")
    assert scripts.get_heads() == [max(FIRST, *LATER)]


def test_a_start_on_the_newest_schema_goes_without_alembic(any_database) -> None:
    code = (
        "import sys; from services.database.engine import Database; "
        "from services.database.migrate import upgrade; "
        "upgrade(Database(sys.argv[1])); "
        "assert not {'alembic', 'mako', 'pygments'} & sys.modules.keys()"
    )
    url = any_database.url.render_as_string(hide_password=False)
    subprocess.run([sys.executable, "-c", code, url], check=True)


def test_a_newer_schema_is_worked_with_if_it_says_so(any_database) -> None:
    stamp(any_database, since=LATER[-1])
    assert fits(any_database)
    upgrade(any_database)
    with any_database.reading() as connection:
        revision = connection.exec_driver_sql("SELECT version_num FROM alembic_version")
        assert revision.scalar() == NEWER
    stamp(any_database, since=NEWER)
    assert not fits(any_database)
    with pytest.raises(Unavailable, match=rf"another version of spnode .*{NEWER}"):
        upgrade(any_database)


def test_processes_of_the_version_before_start_again_after_a_migration() -> None:
    with deployed() as deployment:
        with opened(deployment.settings) as (database, _):
            add(database)
            stamp(database, since=LATER[-1])
        by_it = deployment.start_gateway()
        deployment.start("worker", "worker")
        with by_it.client() as client:
            id = client.post("/v1/jobs", json=MADE).json()["id"]

            def has_ended() -> bool:
                state = client.get(f"/v1/jobs/{id}").json()["state"]
                assert state != "failed"
                return state == "succeeded"

            wait_for(has_ended, 90)
        for name in ("worker", "gateway"):
            deployment.stop(name)
        with opened(deployment.settings) as (database, _):
            stamp(database, since=NEWER)
        for name, module in (("late-worker", "worker"), ("late-gateway", "api")):
            process = deployment.start(name, module)
            try:
                assert process.wait(180) != 0
            except subprocess.TimeoutExpired:
                pytest.fail(f"{module} went on")
            said = (deployment.folder / f"{name}.log").read_text()
            assert "of another version of spnode" in said
