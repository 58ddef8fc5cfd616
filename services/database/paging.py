"""Pages of records, newest first, with opaque cursors over (created_at, id).

A cursor names the last record of a page, so a page neither skips nor repeats a record
when others are added meanwhile.
"""

import base64
import binascii
import itertools
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

import sqlalchemy as sa

from services.database.tables import instant
from services.errors import Invalid

MAX_LIMIT = 100
MOST_CHARACTERS = 32 * 2**20
"""Of the rows of a page, as JSON."""
Record = TypeVar("Record")


@dataclass(frozen=True)
class Page(Generic[Record]):
    """Some records, and the cursor from which the rest continues (None: no more)."""

    items: tuple[Record, ...]
    next: str | None


def page_of(
    connection: sa.Connection,
    query: sa.Select[Any],
    *,
    created_at: sa.Column[Any],
    id: sa.Column[Any],
    limit: int,
    after: str | None,
) -> tuple[list[sa.RowMapping], str | None]:
    """Return the rows of a page and the cursor of the next.

    A page of rows whose JSON is long has fewer of them, and one at least.

    Args:
        connection: Where to read.
        query: The rows to page through, filtered and not ordered.
        created_at: First column of the order, newest first.
        id: Second column of the order.
        limit: Most rows, 1 to 100.
        after: Cursor of the page before, if any.

    Raises:
        Invalid: The limit is out of range, or the cursor is not one of ours.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise Invalid("limit", found=repr(limit), expected=f"1 to {MAX_LIMIT}")
    if after is not None:
        query = query.where(sa.tuple_(created_at, id) < _decode(after, created_at, id))
    ordered = query.order_by(created_at.desc(), id.desc())
    limit = _fitting(connection, ordered, limit)
    rows = list(connection.execute(ordered.limit(limit + 1)).mappings())
    if len(rows) <= limit:
        return rows, None
    last = rows[limit - 1]
    return rows[:limit], _encode(last[created_at.name], last[id.name])


def _fitting(connection: sa.Connection, query: sa.Select[Any], limit: int) -> int:
    """How many of the rows are no longer than a page, all together; one at least."""
    lengths = [
        sa.func.coalesce(sa.func.length(sa.cast(column, sa.Text)), 0)
        for column in query.selected_columns
        if isinstance(column.type, sa.JSON)
    ]
    if not lengths:
        return limit
    sizes = query.with_only_columns(*lengths, maintain_column_froms=True).limit(limit)
    ends = itertools.accumulate(map(sum, connection.execute(sizes)))
    return max(1, sum(end <= MOST_CHARACTERS for end in ends))


def _encode(created_at: datetime, id: str | int) -> str:
    text = json.dumps([created_at.timestamp(), id])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(cursor: str, created_at: sa.Column[Any], id_column: sa.Column[Any]) -> Any:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        seconds, id = json.loads(base64.urlsafe_b64decode(padded))
        moment = instant(float(seconds))
        _check_id(id, id_column)
    except (
        binascii.Error,
        ValueError,
        TypeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise Invalid(
            "after",
            found=repr(cursor[:200]),
            expected="the `next` of an earlier page, unchanged",
        ) from error
    return sa.tuple_(sa.literal(moment, created_at.type), sa.literal(id))


def _check_id(id: object, column: sa.Column[Any]) -> None:
    """Refuse what a database would fail on: it may be forged."""
    is_right = type(id) is column.type.python_type
    if isinstance(id, str):
        is_right = is_right and id.isascii() and "\0" not in id
    if isinstance(id, int):
        is_right = is_right and 0 <= id < 2**31
    if not is_right:
        raise ValueError("not an id")
