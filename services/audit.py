"""Who changed what, and when: a row for each request that may change something.

Rows are only added. Triggers in the database refuse to change or delete one, so that
not even a key with every scope can take back what it did.
"""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from services.database import tables
from services.database.clock import Clock
from services.database.engine import Database
from services.database.paging import Page, page_of
from services.database.tables import instant

LONGEST_PATH = 500


@dataclass(frozen=True)
class Act:
    """A request that was answered."""

    id: int
    caller: str
    """``key:<id>``, or ``loopback``."""
    method: str
    path: str
    status: int
    """Of the answer: what came of it."""
    request_id: str
    created_at: datetime
    made: str | None
    """Path of what it made, where it made something."""


class Audit:
    """The log of what callers did.

    Args:
        database: Where the rows are.
        clock: Seconds since 1970; the database's by default.
    """

    def __init__(self, database: Database, *, clock: Clock | None = None) -> None:
        self.database = database
        self.clock = clock or database.clock

    def note(
        self,
        caller: str,
        method: str,
        path: str,
        status: int,
        request_id: str,
        made: str | None = None,
    ) -> None:
        """Append what somebody did, what came of it, and the path of what it made.

        Raises:
            Unavailable: The database does not answer.
        """
        row = {
            "caller": caller,
            "method": method,
            "path": path[:LONGEST_PATH],
            "status": status,
            "request_id": request_id,
            "created_at": instant(self.clock()),
            "made": made and made[:LONGEST_PATH],
        }
        with self.database.transaction() as connection:
            connection.execute(sa.insert(tables.audit).inline(), row)

    def list(
        self, *, limit: int = 20, after: str | None = None, caller: str | None = None
    ) -> Page[Act]:
        """Return what was done, newest first.

        Args:
            limit: Most rows, 1 to 100.
            after: Cursor of the page before, if any.
            caller: Of one caller alone.

        Raises:
            Invalid: The limit or the cursor.
        """
        table = tables.audit
        query = sa.select(table)
        if caller is not None:
            query = query.where(table.c.caller == caller)
        with self.database.reading() as connection:
            rows, following = page_of(
                connection,
                query,
                created_at=table.c.created_at,
                id=table.c.id,
                limit=limit,
                after=after,
            )
        return Page(tuple(Act(**row) for row in rows), following)
