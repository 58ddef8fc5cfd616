"""What a job needs, kept until its row refers to it.

Who deletes a dataset or a version locks its row, then looks for jobs that need it; who
queues a job holds those rows, then adds its own. So one of the two sees the other.
"""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from services.database import tables
from services.errors import Conflict


def hold_versions(connection: sa.Connection, request: dict[str, Any]) -> None:
    """Keep the versions that a planned request names.

    Raises:
        Conflict: One was deleted since the request was planned.
    """
    digests = set(_digests(request))
    if not digests:
        return
    table = tables.versions
    query = sa.select(table.c.digest).where(table.c.digest.in_(digests))
    held = connection.execute(query.with_for_update(read=True)).scalars()
    if digests - set(held):
        raise Conflict(
            "a version that this job needs has been deleted; submit another job",
            code="version_deleted",
        )


def hold_dataset(connection: sa.Connection, id: str | None) -> bool:
    """Keep a dataset; whether it is there.

    Before the row of a job is locked: who deletes a dataset locks in this order too.
    """
    table = tables.datasets
    query = sa.select(table.c.id).where(table.c.id == id).with_for_update(read=True)
    return connection.execute(query).one_or_none() is not None


def _digests(request: dict[str, Any]) -> Iterator[str]:
    """Rollouts, calibrations, comparisons and warm starts say which by digest."""
    named = (request, request.get("parent"), *request.get("versions", ()))
    yield from (each["digest"] for each in named if each and each.get("digest"))
