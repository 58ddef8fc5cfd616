"""Idempotency-Keys: what a caller asks for twice under one key is done once.

A job keeps the key under which it was submitted in its own row; those of uploads and of
retries have a table.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from services.database import tables
from services.errors import Invalid
from services.identity import sha256

REMEMBERED = timedelta(hours=24)
"""For how long a key is remembered."""
_FORGOTTEN_AT_ONCE = 100


@dataclass(frozen=True)
class Asked:
    """A request under a key."""

    owner: str
    key: str
    digest: str
    """What tells it from another request: ``request_digest``."""


def request_digest(request: dict[str, Any]) -> str:
    """What tells one request from another under the same idempotency key."""
    return sha256(json.dumps(request, sort_keys=True).encode())


def made_under(
    connection: sa.Connection, asked: Asked | None, now: datetime
) -> str | None:
    """Return the id of what an upload or a retry made under a key, if it did.

    Without a key nothing was.

    Raises:
        Invalid: The key was used for another request (code
            ``idempotency_key_reused``).
    """
    if asked is None:
        return None
    table = tables.idempotency_keys
    query = sa.select(table.c.made_id, table.c.request_hash).where(
        _is_named(asked), table.c.created_at >= now - REMEMBERED
    )
    found = connection.execute(query).one_or_none()
    if found is None:
        return None
    if found.request_hash != asked.digest:
        raise reused(repr(found.made_id))
    return found.made_id


def remember(
    connection: sa.Connection, asked: Asked, made_id: str, now: datetime
) -> None:
    """Keep what was made under a key that is free, and let old keys go."""
    table = tables.idempotency_keys
    is_old = table.c.created_at < now - REMEMBERED
    connection.execute(sa.delete(table).where(_is_named(asked), is_old))
    row = sa.tuple_(table.c.owner, table.c.idempotency_key)
    # Those that another forgets at this moment are passed over.
    some = (
        sa.select(table.c.owner, table.c.idempotency_key)
        .where(is_old)
        .limit(_FORGOTTEN_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    connection.execute(sa.delete(table).where(row.in_(some)))
    values = {
        "owner": asked.owner,
        "idempotency_key": asked.key,
        "request_hash": asked.digest,
        "made_id": made_id,
        "created_at": now,
    }
    connection.execute(sa.insert(table).values(values))


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


def _is_named(asked: Asked) -> sa.ColumnElement[bool]:
    table = tables.idempotency_keys
    return sa.and_(table.c.owner == asked.owner, table.c.idempotency_key == asked.key)
