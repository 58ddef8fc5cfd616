"""One synchronous engine, with write-first transactions on SQLite and PostgreSQL.

A write transaction begins with ``BEGIN IMMEDIATE`` on SQLite: a deferred one that reads
and then writes fails at once with "database is locked" when another has written
meanwhile, and no busy timeout helps (measured: 806 such errors in two seconds).
"""

import hashlib
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine.url import make_url
from sqlalchemy.exc import (
    DBAPIError,
    InvalidatePoolError,
    OperationalError,
)
from sqlalchemy.exc import (
    TimeoutError as PoolTimeout,
)
from sqlalchemy.pool import NullPool

from services.database.clock import Clock, Reading, ServerClock
from services.database.driver import (
    DriverConnections,
    DriverStatement,
    Row,
    Statement,
    failure,
    is_read_only,
)
from services.errors import Unavailable

BUSY_TIMEOUT_MS = 10_000
LEAST_ROOM_BYTES = 16 * 2**20
"""Of the disk of SQLite: some times its log between two checkpoints, 4 MB."""
PING_AFTER_S = 1.0
"""A connection to PostgreSQL that rested for so long is tried before it is used."""
IDLE_TRANSACTION_S = 20
"""So long PostgreSQL keeps the locks of one who is silent amid a transaction.

A worker that is cut off between a write and its commit holds up its job for so long.
"""
WAIT_FOR_STORE_S = 300
"""The same while it asks the store; longer than that takes to answer or give up."""
WAIT_FOR_LOCK_S = IDLE_TRANSACTION_S + 10
"""Who waits longer for a lock of another's is told that the database is not available.

Most locks of one who is silent are gone by then.
"""
_PEER = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""When a server of PostgreSQL that has vanished is given up; the URL may say else."""
_SQLITE_PRAGMAS = (
    f"busy_timeout={BUSY_TIMEOUT_MS}",
    "foreign_keys=ON",
)
_IDLE = "idle_in_transaction_session_timeout"
_TIME = "SELECT extract(epoch FROM clock_timestamp())"

Make = Callable[[], Statement]
"""Makes a statement; called once."""
Run = Callable[[Make, Mapping[str, Any]], Row | None]
"""Runs a statement with the values of its parameters; its first row, or None."""


class Database:
    """Connections to the one database that holds all mutable state.

    Args:
        url: SQLAlchemy URL of SQLite or of PostgreSQL (``postgresql+psycopg://``).

    Attributes:
        clock: Seconds since 1970, the same for all that share the database: by the
            server of PostgreSQL, by this machine for SQLite, which never leaves it.
    """

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        peer = {} if self.is_sqlite else _PEER
        given = {name: peer[name] for name in peer.keys() - self.url.query.keys()}
        self.engine = sa.create_engine(self.url, connect_args=given)
        # SQLite's transactions are like that, PostgreSQL's when they are asked to be:
        # else a second read may not find what the first has named.
        moment = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        self._moments = self.engine.execution_options(**moment)
        self.clock: Clock = time.time if self.is_sqlite else ServerClock(self._read)
        self._compiled: dict[Make, DriverStatement] = {}
        single = {} if self.is_sqlite else {"isolation_level": "AUTOCOMMIT"}
        apart = sa.create_engine(
            self.url, connect_args=given, poolclass=NullPool, **single
        )
        self._apart = DriverConnections(apart, PING_AFTER_S)
        prepare = _prepare_sqlite if self.is_sqlite else _limit_waits
        for engine in (self.engine, apart):
            event.listen(engine, "connect", prepare)
        if self.is_sqlite:
            event.listen(self.engine, "begin", _begin_sqlite)
            return
        event.listen(self.engine, "checkin", _note_use)
        event.listen(self.engine, "checkout", self._ping_after_rest)

    @contextmanager
    def transaction(self, *, is_durable: bool = True) -> Iterator[sa.Connection]:
        """Give a connection whose writes are committed together, or not at all.

        Args:
            is_durable: Whether they must survive a power cut once this returns: what
                callers were told must, who has a lease need not. SQLite waits for the
                disk then; PostgreSQL always does.

        Raises:
            Unavailable: The database does not answer, stays locked or has no room.
        """
        with (
            _translated(),
            self.engine.connect() as bare,
            bare.execution_options(
                spnode_write=True, spnode_durable=is_durable
            ) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def by_driver(self) -> Iterator[Run]:
        """Give what runs statements that change something by the driver itself.

        PostgreSQL commits each before it answers: one round trip instead of three.
        SQLite commits all together at the end, and does not wait for the disk.

        Raises:
            Unavailable: The database does not answer, or stays locked.
        """
        with self._apart.one() as cursor:
            if self.is_sqlite:
                _begin_writing(cursor.execute, is_durable=False)
            yield partial(self._run, cursor)
            if self.is_sqlite:
                cursor.execute("COMMIT")

    def _run(self, cursor: Any, make: Make, values: Mapping[str, Any]) -> Row | None:
        statement = self._compiled.get(make)
        if statement is None:
            statement = DriverStatement(make(), self.engine.dialect)
            self._compiled[make] = statement
        return statement.row(cursor, values)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Give a connection for reads, all from one moment.

        Raises:
            Unavailable: The database does not answer.
        """
        with _translated(), self._moments.connect() as connection:
            yield connection

    def lock(self, connection: sa.Connection, name: str) -> None:
        """Exclude others that lock the same name until the transaction ends.

        On SQLite a write transaction excludes every other already.
        """
        if not self.is_sqlite:
            number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(number)))

    @contextmanager
    def silent(self, connection: sa.Connection) -> Iterator[None]:
        """Let a transaction be silent for as long as the store may take to answer."""
        self._allow_silence(connection, WAIT_FOR_STORE_S)
        yield
        self._allow_silence(connection, IDLE_TRANSACTION_S)

    def _allow_silence(self, connection: sa.Connection, seconds: int) -> None:
        if not self.is_sqlite:
            limit = sa.func.set_config(_IDLE, f"{seconds}s", True)
            connection.execute(sa.select(limit))

    def ping(self) -> None:
        """Ask the database for a one.

        Raises:
            Unavailable: It does not answer.
        """
        with self.reading() as connection:
            connection.execute(sa.select(1))

    def has_room(self) -> bool:
        """Whether what is written next finds room; of a server it is not known here.

        SQLite reads on where its disk is full, and a small write may pass.
        """
        file = self.url.database if self.is_sqlite else None
        if not file:
            return True
        return shutil.disk_usage(Path(file).parent).free >= LEAST_ROOM_BYTES

    def close(self) -> None:
        """Close every connection of the pool."""
        self._apart.close()
        self.engine.dispose()

    def _read(self) -> Reading:
        """Ask the server what time it is, by a connection that is open already."""
        with self._apart.one() as cursor:
            asked_at = time.monotonic()
            row = cursor.execute(_TIME).fetchone()
            return Reading(float(row[0]), asked_at, time.monotonic())

    def _ping_after_rest(self, connection: Any, record: Any, proxy: Any) -> None:
        """Find out that a connection is dead before it is given away.

        One in constant use is not tried each time, which is a round trip for each
        transaction. Where such a one dies, one caller is told that the database does
        not answer; the pool then lets all its connections go.
        """
        used_at = record.info.get("used_at")
        if used_at is None or time.monotonic() - used_at < PING_AFTER_S:
            return
        dialect = self.engine.dialect
        try:
            dialect.do_ping(connection)
        except dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError(str(error)) from error


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except PoolTimeout as error:
        raise Unavailable("all connections to the database are in use") from error
    except OperationalError as error:
        raise Unavailable(failure(error), reason=error.orig) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise Unavailable("the database went away", reason=error.orig) from error
        if is_read_only(error.orig):
            raise Unavailable(
                "the database takes no writes", reason=error.orig
            ) from error
        raise


def _note_use(connection: Any, record: Any) -> None:
    record.info["used_at"] = time.monotonic()


def _limit_waits(connection: Any, record: Any) -> None:
    """A peer that vanished in mid-transaction would keep its locks for two hours."""
    # By statements: poolers refuse these as parameters of the connection.
    connection.execute(f"SET {_IDLE} = '{IDLE_TRANSACTION_S}s'")
    connection.execute(f"SET lock_timeout = '{WAIT_FOR_LOCK_S}s'")
    connection.commit()


def _prepare_sqlite(connection: Any, record: Any) -> None:
    # The driver's own BEGIN comes too late (only before DML): we send it ourselves.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in _SQLITE_PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    _write_ahead(cursor)
    cursor.close()


def _write_ahead(cursor: Any) -> None:
    """Switch to a write-ahead log, also while another process does the same.

    A new file's first switch needs the file for itself, and SQLite does not wait for
    it as ``busy_timeout`` says: it fails at once. Later connections find it done.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _begin_sqlite(connection: sa.Connection) -> None:
    options = connection.get_execution_options()
    if options.get("spnode_write", False):
        _begin_writing(connection.exec_driver_sql, is_durable=options["spnode_durable"])
    else:
        connection.exec_driver_sql("BEGIN")


def _begin_writing(execute: Callable[[str], Any], *, is_durable: bool) -> None:
    execute(f"PRAGMA synchronous={'FULL' if is_durable else 'NORMAL'}")
    execute("BEGIN IMMEDIATE")
