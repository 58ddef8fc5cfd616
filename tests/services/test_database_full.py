"""A database without room says so: whoever asks has done nothing wrong."""

from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import event

from services.database import tables
from services.database.driver import failure
from services.database.engine import Database
from services.database.tables import instant
from services.errors import Unavailable
from services.jobs import Jobs

NO_ROOM = "there is no room on this host's disk"


@pytest.fixture
def full(database: Database) -> Database:
    """One whose file may not grow by a page."""

    def limit(connection: Any, record: Any) -> None:
        connection.execute("PRAGMA max_page_count=1")

    for made in (database.engine, database._apart._engine):
        event.listen(made, "connect", limit)
    database.close()
    return database


def test_who_queues_a_job_on_a_full_disk_is_told_so(full: Database) -> None:
    request = {"kind": "dataset", "system": "robertson", "note": "x" * 100_000}
    with pytest.raises(Unavailable) as refused:
        Jobs(full).submit("dataset", request, owner="me")
    assert (refused.value.code, refused.value.message) == ("unavailable", NO_ROOM)
    assert "database or disk is full" in str(refused.value)
    assert Jobs(full).list().items == ()


def test_a_statement_by_the_driver_says_so_too(full: Database) -> None:
    row = {"id": "w", "queues": ["a" * 100_000], "is_warm": True}
    row |= {"seen_at": instant(1.5), "started_at": instant(0)}
    insert = sa.insert(tables.workers).values(
        {name: sa.bindparam(name, type_=tables.workers.c[name].type) for name in row}
    )
    with pytest.raises(Unavailable, match=NO_ROOM), full.by_driver() as run:
        run(lambda: insert, row)


def test_the_disk_of_a_server_is_not_this_host_s() -> None:
    assert failure(psycopg.errors.DiskFull()) == (
        "there is no room on the database's disk"
    )
    assert failure(psycopg.OperationalError()) == "the database does not answer"
