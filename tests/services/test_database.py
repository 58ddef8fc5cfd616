import multiprocessing
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.sql.dml import ReturningInsert

from services.database import engine, paging, tables
from services.database.engine import Database
from services.database.migrate import fits, upgrade
from services.database.paging import page_of
from services.database.tables import instant, metadata
from services.errors import Invalid, Unavailable
from services.jobs import Jobs
from services.leases import Leases
from tests.postgres import end_connections


def test_migrations_produce_exactly_the_tables(any_database: Database) -> None:
    with any_database.reading() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []
        inspector = sa.inspect(connection)
        for table in metadata.tables.values():
            made = {
                check["name"] for check in inspector.get_check_constraints(table.name)
            }
            wanted = {
                constraint.name
                for constraint in table.constraints
                if isinstance(constraint, sa.CheckConstraint)
            }
            assert made == wanted, table.name
    assert fits(any_database)


def test_migrations_can_be_undone(any_database: Database) -> None:
    from alembic import command

    from services.database.migrate import configuration

    with any_database.transaction() as connection:
        config = configuration()
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    with any_database.reading() as connection:
        assert set(sa.inspect(connection).get_table_names()) == {"alembic_version"}
    assert not fits(any_database)


def _upgrade(url: str, start: Any, outcomes: Any) -> None:
    database = Database(url)
    start.wait(30)
    try:
        upgrade(database)
        outcomes.put(fits(database))
    finally:
        database.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_two_processes_that_start_at_once_both_migrate(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/new/spnode.db"
    if kind == "postgresql":
        url = request.getfixturevalue("postgres_url")
    context = multiprocessing.get_context("spawn")
    start, outcomes = context.Event(), context.Queue()
    both = [
        context.Process(target=_upgrade, args=(url, start, outcomes)) for _ in range(2)
    ]
    for process in both:
        process.start()
    start.set()
    assert [outcomes.get(timeout=60) for _ in both] == [True, True]
    for process in both:
        process.join(30)
        assert process.exitcode == 0


def test_the_first_connection_waits_for_one_that_writes(tmp_path: Path) -> None:
    writer = sqlite3.connect(
        tmp_path / "spnode.db", check_same_thread=False, isolation_level=None
    )
    writer.execute("CREATE TABLE t (a)")
    writer.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.5, writer.close)
    release.start()
    database = Database(f"sqlite:///{tmp_path}/spnode.db")
    with database.reading() as connection:
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
    release.join()
    assert mode == "wal"
    database.close()


def test_a_connection_that_died_at_rest_is_replaced_unnoticed(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "PING_AFTER_S", 0.0)
    database = Database(postgres_url)
    database.ping()
    end_connections(postgres_url)
    database.ping()
    database.close()


def test_one_caller_is_told_of_a_connection_that_died_in_use(postgres_url: str) -> None:
    database = Database(postgres_url)
    with database.reading() as one, database.reading() as other:
        # A connection is made at its first statement.
        assert one.scalar(sa.select(1)) == other.scalar(sa.select(1))
    end_connections(postgres_url)
    with pytest.raises(Unavailable, match="the database does not answer"):
        database.ping()
    with database.reading(), database.reading():
        database.ping()
    database.close()


def test_one_who_is_silent_amid_a_transaction_loses_its_locks(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "IDLE_TRANSACTION_S", 0.2)
    database = Database(postgres_url)

    def be_silent(*, waits_for_store: bool) -> None:
        with database.transaction() as connection:
            connection.execute(sa.select(1))
            with database.silent(connection) if waits_for_store else nullcontext():
                time.sleep(0.5)
            connection.execute(sa.select(1))

    with pytest.raises(Unavailable, match="the database"):
        be_silent(waits_for_store=False)
    be_silent(waits_for_store=True)
    # The longer wait ended with the block.
    with pytest.raises(Unavailable, match="the database"):
        be_silent(waits_for_store=False)
    database.ping()
    database.close()


def test_a_server_that_vanished_is_given_up_as_the_url_says(postgres_url: str) -> None:
    url = sa.make_url(postgres_url).update_query_dict({"tcp_user_timeout": "5000"})
    database = Database(url.render_as_string(hide_password=False))
    with database.reading() as connection:
        assert connection.connection.dbapi_connection is not None
        told = connection.connection.dbapi_connection.info.get_parameters()  # type: ignore[attr-defined]
    assert told["tcp_user_timeout"] == "5000"
    assert told["keepalives_idle"] == "30"
    database.close()


def _insert_worker() -> ReturningInsert[Any]:
    names = ("id", "queues", "started_at", "seen_at")
    row = {
        name: sa.bindparam(name, type_=tables.workers.c[name].type) for name in names
    }
    return sa.insert(tables.workers).values(row).returning(*tables.workers.c)


def test_a_statement_by_the_driver_converts_as_others_do(postgres_url: str) -> None:
    database = Database(postgres_url)
    upgrade(database)
    row = {"id": "w", "queues": ["a", "b"]}
    row |= {"seen_at": instant(1.5), "started_at": instant(0), "is_warm": True}

    def insert(row: dict[str, Any]) -> dict[str, Any] | None:
        with database.by_driver() as run:
            return run(_insert_worker, row)

    assert insert(row) == row
    with database.reading() as connection:
        assert connection.execute(sa.select(tables.workers)).mappings().one() == row
    with pytest.raises(psycopg.errors.UniqueViolation):
        insert(row)
    # It stays usable, and is committed by nobody else.
    assert insert(row | {"id": "v"})
    with database.transaction() as connection:
        assert connection.in_transaction()
        connection.execute(sa.delete(tables.workers))
    end_connections(postgres_url)
    with pytest.raises(Unavailable, match="the database does not answer"):
        insert(row)
    assert insert(row) == row
    # One that rested and died meanwhile is found out before it is used.
    database._apart._ping_after_s = 0.0
    end_connections(postgres_url)
    assert insert(row | {"id": "u"})
    database.close()


def test_a_server_that_takes_no_writes_is_unavailable(postgres_url: str) -> None:
    database = Database(postgres_url)
    upgrade(database)
    name = database.url.database
    with database.transaction() as connection:
        connection.exec_driver_sql(
            f"ALTER DATABASE {name} SET default_transaction_read_only = on"
        )
    database.close()
    standby = Database(postgres_url)
    request = {"kind": "dataset", "system": "robertson", "trajectories": 4}
    with pytest.raises(Unavailable, match=r"takes no writes: .*read-only transaction"):
        Jobs(standby).submit("dataset", request, owner="me")
    with pytest.raises(Unavailable, match="read-only transaction"):
        Leases(standby).claim("datasets", "worker")
    standby.ping()
    assert Jobs(standby).list().items == ()
    standby.close()


def test_few_connections_of_the_driver_s_stay_open(postgres_url: str) -> None:
    database, held = Database(postgres_url), threading.Barrier(10)
    me = sa.select(sa.func.pg_backend_pid().label("pid"))

    def use(_: int) -> int:
        with database.by_driver() as run:
            held.wait(30)
            row = run(lambda: me, {})
            assert row is not None
            return int(row["pid"])

    with ThreadPoolExecutor(10) as threads:
        used = set(threads.map(use, range(10)))
    assert len(used) == 10
    with database.reading() as connection:
        pids = sa.text("SELECT pid FROM pg_stat_activity")
        deadline = time.monotonic() + 30
        # The server takes a moment to notice.
        while len(open := used & set(connection.execute(pids).scalars())) > 2:
            assert time.monotonic() < deadline, f"{len(open)} are open"
            time.sleep(0.05)
    database.close()


def test_statements_by_the_driver_are_one_transaction_on_sqlite(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    upgrade(database)
    row = {"id": "w", "queues": ["a", "b"]}
    row |= {"seen_at": instant(1.5), "started_at": instant(0), "is_warm": True}
    with database.by_driver() as run:
        assert run(_insert_worker, row) == row
    with database.reading() as connection:
        assert connection.execute(sa.select(tables.workers)).mappings().one() == row

    def insert_twice() -> None:
        with database.by_driver() as run:
            assert run(_insert_worker, row | {"id": "v"})
            run(_insert_worker, row)

    with pytest.raises(sqlite3.IntegrityError):
        insert_twice()
    with database.reading() as connection:
        ids = connection.execute(sa.select(tables.workers.c.id)).scalars().all()
    assert ids == ["w"]
    database.close()


def _count_up(database: Database) -> None:
    table = tables.workers
    with database.transaction() as connection:
        query = sa.select(table.c.queues).where(table.c.id == "w").with_for_update()
        count = connection.execute(query).scalar_one()[0]
        update = sa.update(table).where(table.c.id == "w")
        connection.execute(update.values(queues=[count + 1]))


def test_transactions_that_read_and_write_never_find_the_database_locked(
    any_database: Database,
) -> None:
    now = instant(0)
    row = {"id": "w", "queues": [0], "started_at": now, "seen_at": now}
    with any_database.transaction() as connection:
        connection.execute(sa.insert(tables.workers).values(row))
    with ThreadPoolExecutor(8) as threads:
        done = [threads.submit(_count_up, any_database) for _ in range(200)]
    assert [each.exception() for each in done] == [None] * 200
    with any_database.reading() as connection:
        assert connection.execute(sa.select(tables.workers.c.queues)).scalar_one() == [
            200
        ]


def test_sqlite_waits_for_the_disk_unless_what_is_written_may_be_lost(
    database: Database,
) -> None:
    def level(*, is_durable: bool) -> int:
        with database.transaction(is_durable=is_durable) as connection:
            return connection.exec_driver_sql("PRAGMA synchronous").scalar_one()

    full, normal = 2, 1
    assert level(is_durable=True) == full
    assert level(is_durable=False) == normal
    assert level(is_durable=True) == full


def test_a_failed_transaction_leaves_nothing(any_database: Database) -> None:
    now = instant(0)
    row = {"id": "w", "queues": [], "started_at": now, "seen_at": now}
    with pytest.raises(KeyError), any_database.transaction() as connection:  # noqa: PT012
        connection.execute(sa.insert(tables.workers).values(row))
        raise KeyError("in the middle")
    with any_database.reading() as connection:
        assert connection.execute(sa.select(tables.workers)).all() == []


def test_readers_do_not_wait_for_a_writer(database: Database) -> None:
    written, read = threading.Event(), threading.Event()

    def write() -> None:
        with database.transaction():
            written.set()
            assert read.wait(10)

    writer = threading.Thread(target=write)
    writer.start()
    assert written.wait(10)
    with database.reading() as connection:
        connection.execute(sa.select(tables.jobs)).all()
    read.set()
    writer.join()


def test_instants_keep_their_microseconds(any_database: Database) -> None:
    now = instant(1_790_000_000.123457)
    row = {"id": "w", "queues": [], "started_at": now, "seen_at": now}
    with any_database.transaction() as connection:
        connection.execute(sa.insert(tables.workers).values(row))
        found = connection.execute(sa.select(tables.workers.c.seen_at)).scalar_one()
    assert found == now
    assert found.utcoffset() is not None


@pytest.mark.parametrize("cursor", ["", "x", "bnVsbA", "WzFd", "W251bGwsIDFd"])
def test_a_cursor_that_is_not_ours_is_refused(database: Database, cursor: str) -> None:
    table = tables.jobs
    with database.reading() as connection, pytest.raises(Invalid, match="after: found"):
        page_of(
            connection,
            sa.select(table),
            created_at=table.c.created_at,
            id=table.c.id,
            limit=5,
            after=cursor,
        )


def test_a_page_of_long_rows_has_fewer(any_database: Database, monkeypatch) -> None:
    jobs = Jobs(any_database)
    ids = [
        jobs.submit("dataset", {"name": size * "x"}, owner="me")[0].id
        for size in (10, 10, 900, 2000, 10, 10)
    ]
    monkeypatch.setattr(paging, "MOST_CHARACTERS", 1000)
    pages, after = [], None
    while not pages or after:
        page = jobs.list(limit=5, after=after)
        pages.append([each.id for each in page.items])
        after = page.next
    newest = ids[::-1]
    assert pages == [newest[:2], newest[2:3], newest[3:]]


def test_an_unreachable_database_is_unavailable() -> None:
    database = Database("postgresql+psycopg://nobody@127.0.0.1:1/none")
    with pytest.raises(Unavailable, match="the database does not answer"):
        database.ping()
    database.close()
