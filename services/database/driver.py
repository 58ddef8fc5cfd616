"""A statement run by the database's driver itself, for what is run most often.

What SQLAlchemy does around a statement takes longer than the statement: a claim on
PostgreSQL takes 0.7 ms of CPU by ``Connection.execute`` and 0.3 ms so. Types are
converted as there.
"""

import sqlite3
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.sql import visitors
from sqlalchemy.sql.dml import ReturningInsert, ReturningUpdate

from services.errors import Unavailable

MOST_IDLE = 2
"""So many connections are kept: a worker's claims and the clock come one at a time."""
_READ_ONLY = "25006"
_NO_ROOM: dict[int | str | None, str] = {
    sqlite3.SQLITE_FULL: "there is no room on this host's disk",
    "53100": "there is no room on the database's disk",
}
Statement = sa.Select[Any] | sa.Insert | ReturningInsert[Any] | ReturningUpdate[Any]
Row = dict[str, Any]


class DriverStatement:
    """A statement that is compiled once, for one kind of database.

    Args:
        statement: Core; what it selects or returns has names of its own.
        dialect: Of the engine.
    """

    def __init__(self, statement: Statement, dialect: sa.Dialect) -> None:
        if dialect.positional:  # as SQLite's, whose driver takes names too
            make: Any = type(dialect)
            dialect = make(paramstyle="named")
        compiled = _with_constants(statement, dialect).compile(dialect=dialect)
        self.text = str(compiled)
        # What the compiler adds itself: SQLite's dialect gives every LIMIT an OFFSET.
        self._fixed = {
            name: bind.value
            for name, bind in compiled.binds.items()
            if bind.value is not None
        }
        self._given = [
            (name, bind.type.dialect_impl(dialect).bind_processor(dialect))
            for name, bind in compiled.binds.items()
        ]
        columns = statement.exported_columns
        self._found = [column.name for column in columns]
        processors = (
            column.type.dialect_impl(dialect).result_processor(dialect, None)
            for column in columns
        )
        self._converts = [
            (name, convert)
            for name, convert in zip(self._found, processors, strict=True)
            if convert is not None
        ]

    def row(self, cursor: Any, values: Mapping[str, Any]) -> Row | None:
        """Run it by a cursor of the driver's; its first row by names, or None."""
        given = {**self._fixed, **values}
        bound = {
            name: convert(given[name]) if convert else given[name]
            for name, convert in self._given
        }
        cursor.execute(self.text, bound)
        found = cursor.fetchone() if self._found else None
        if found is None:
            return None
        row = dict(zip(self._found, found, strict=True))
        for name, convert in self._converts:
            row[name] = convert(row[name])
        return row


class DriverConnections:
    """The driver's own connections, which begin no transaction by themselves.

    Some stay open between uses, with one cursor each. SQLAlchemy's pool takes 70 µs of
    CPU to give one away and take it back, and a cursor 30 µs: a quarter of a claim.

    Args:
        engine: Makes connections, and keeps none.
        ping_after_s: One that rested for so long is tried before it is used.
    """

    def __init__(self, engine: sa.Engine, ping_after_s: float) -> None:
        self._engine, self._ping_after_s = engine, ping_after_s
        self._idle: deque[tuple[Any, float]] = deque()

    @contextmanager
    def one(self) -> Iterator[Any]:
        """Give the cursor of a connection; what it did not commit is taken back.

        Raises:
            Unavailable: The database does not answer, stays locked or has no room.
        """
        # The engine's first connection is tried by SQLAlchemy, with errors of its own.
        failed = (self._engine.dialect.loaded_dbapi.OperationalError, OperationalError)
        cursor = None
        try:
            cursor = self._take()
            yield cursor
        except BaseException as error:
            if cursor is not None:
                self._drop(cursor)
            if not isinstance(error, failed) and not is_read_only(error):
                raise
            self.close()
            raise Unavailable(failure(error), reason=error) from error
        if len(self._idle) < MOST_IDLE:
            self._idle.append((cursor, time.monotonic()))
        else:
            self._drop(cursor)

    def close(self) -> None:
        """Close those that nobody uses."""
        with suppress(IndexError):  # another thread may take the last one
            while True:
                self._drop(self._idle.pop()[0])

    def _take(self) -> Any:
        ping = self._engine.dialect.do_ping
        while True:
            try:
                cursor, used_at = self._idle.pop()
            except IndexError:
                break
            if time.monotonic() - used_at < self._ping_after_s:
                return cursor
            with suppress(self._engine.dialect.loaded_dbapi.Error):
                if ping(cursor.connection):
                    return cursor
            self._drop(cursor)
        pooled = self._engine.raw_connection()
        connection: Any = pooled.driver_connection
        pooled.detach()
        return connection.cursor()

    def _drop(self, cursor: Any) -> None:
        with suppress(self._engine.dialect.loaded_dbapi.Error):
            cursor.connection.close()


def is_read_only(error: BaseException | None) -> bool:
    """Whether a server of PostgreSQL takes no writes, as a standby does."""
    return getattr(error, "sqlstate", None) == _READ_ONLY


def failure(error: BaseException | None) -> str:
    """What callers are told of an operational error of a driver's."""
    cause = getattr(error, "orig", error)
    code = getattr(cause, "sqlite_errorcode", getattr(cause, "sqlstate", None))
    return _NO_ROOM.get(code, "the database does not answer")


def _with_constants(statement: Statement, dialect: sa.Dialect) -> Statement:
    """Write what is always the same into the text.

    Whoever plans the statement knows it then, so that PostgreSQL keeps one plan: for a
    parameter in LIMIT it makes one each time, which takes longer than to run it.
    """

    def written(element: Any, **_: Any) -> sa.ColumnElement[Any] | None:
        if not isinstance(element, sa.BindParameter) or element.value is None:
            return None
        convert = element.type.dialect_impl(dialect).literal_processor(dialect)
        assert convert is not None, f"{element.type!r} cannot be written"
        text = convert(element.value)
        # Both the literal and the column of it would double them.
        assert "%" not in text, f"{text} is to be a parameter"
        return sa.literal_column(text, element.type)

    return cast("Statement", visitors.replacement_traverse(statement, {}, written))
