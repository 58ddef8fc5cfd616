"""One synchronous engine, with write-first transactions on SQLite and PostgreSQL.

A write transaction begins with ``BEGIN IMMEDIATE`` on SQLite: a deferred one that reads
and then writes fails at once with "database is locked" when another has written
meanwhile, and no busy timeout helps (measured: 806 such errors in two seconds).
"""

import hashlib
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine.url import make_url
from sqlalchemy.exc import DBAPIError, OperationalError

from services.errors import Unavailable

BUSY_TIMEOUT_MS = 10_000
_SQLITE_PRAGMAS = (
    f"busy_timeout={BUSY_TIMEOUT_MS}",
    "synchronous=NORMAL",
    "foreign_keys=ON",
)


class Database:
    """Connections to the one database that holds all mutable state.

    Args:
        url: SQLAlchemy URL of SQLite or of PostgreSQL (``postgresql+psycopg://``).
    """

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = sa.create_engine(self.url, pool_pre_ping=not self.is_sqlite)
        if self.is_sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Give a connection whose writes are committed together, or not at all.

        Raises:
            Unavailable: The database does not answer, or stays locked.
        """
        with (
            _translated(),
            self.engine.connect() as bare,
            bare.execution_options(spnode_write=True) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Give a connection for reads, all from one moment on SQLite.

        Raises:
            Unavailable: The database does not answer.
        """
        with _translated(), self.engine.connect() as connection:
            yield connection

    def lock(self, connection: sa.Connection, name: str) -> None:
        """Exclude others that lock the same name until the transaction ends.

        On SQLite a write transaction excludes every other already.
        """
        if not self.is_sqlite:
            number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(number)))

    def ping(self) -> None:
        """Ask the database for a one.

        Raises:
            Unavailable: It does not answer.
        """
        with self.reading() as connection:
            connection.execute(sa.select(1))

    def close(self) -> None:
        """Close every connection of the pool."""
        self.engine.dispose()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        raise Unavailable(f"the database does not answer: {error.orig}") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise Unavailable(f"the database went away: {error.orig}") from error
        raise


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
    is_write = connection.get_execution_options().get("spnode_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")
