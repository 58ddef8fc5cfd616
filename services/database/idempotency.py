"""Idempotency-Keys: what a caller asks for twice under one key is done once.

A job keeps the key under which it was submitted in its own row.
"""

from datetime import datetime, timedelta

import sqlalchemy as sa

from services.database import tables
from services.errors import Invalid

REMEMBERED = timedelta(hours=24)
"""For how long a key is remembered."""


def job_under(
    connection: sa.Connection, owner: str, key: str, now: datetime
) -> sa.RowMapping | None:
    """Return the row of the job that was submitted under a key, if there is one."""
    table = tables.jobs
    query = sa.select(table).where(
        table.c.owner == owner,
        table.c.idempotency_key == key,
        table.c.created_at >= now - REMEMBERED,
    )
    return connection.execute(query).mappings().one_or_none()


def free_job_key(
    connection: sa.Connection, owner: str, key: str, now: datetime
) -> None:
    """Let a key go that is too old to be remembered."""
    table = tables.jobs
    old = sa.and_(
        table.c.owner == owner,
        table.c.idempotency_key == key,
        table.c.created_at < now - REMEMBERED,
    )
    connection.execute(sa.update(table).where(old).values(idempotency_key=None))


def reused(what: str) -> Invalid:
    """What a request is told whose key was used for ``what``."""
    return Invalid(
        "Idempotency-Key",
        found=f"a key that {what} used for another request",
        expected="a new key for a new request",
        code="idempotency_key_reused",
    )
