"""Jobs that are queued again by request: which may be, and what their rows become."""

from datetime import datetime

import sqlalchemy as sa

from services.database.candidate_rows import UNFINISHED, ids_of
from services.errors import Conflict
from services.lifecycle import Job, add_event, as_job, move
from services.schedule import place_of
from services.traces import traceparent

RETRIABLE = ("failed", "cancelled")
"""States of which a job can be queued again."""


def check_retriable(row: sa.RowMapping) -> None:
    """Refuse a job that cannot be queued again.

    Raises:
        Conflict: It has not ended, has succeeded, or what it needs is gone.
    """
    id = row["id"]
    if row["state"] not in RETRIABLE:
        raise Conflict(
            f"job {id!r} is {row['state']}; only a failed or cancelled job can be "
            "retried",
            code="job_not_retriable",
        )
    if row["dropped_at"] is not None:
        raise Conflict(
            f"the inputs of job {id!r} have been deleted; submit it anew",
            code="result_dropped",
        )
    if row["request"].get("dataset") and row["dataset_id"] is None:
        raise Conflict(f"the dataset of job {id!r} has been deleted")


def check_ended(connection: sa.Connection, sweep: str) -> None:
    """Refuse a sweep of which candidates have not ended.

    Raises:
        Conflict: There are some.
    """
    if left := ids_of(connection, sweep, UNFINISHED):
        raise Conflict(
            f"{len(left)} candidates of job {sweep!r} have not ended yet, {left[0]!r} "
            "first; retry it when they have",
            code="job_not_retriable",
        )


def queue_again(
    connection: sa.Connection, row: sa.RowMapping, now: datetime, max_attempts: int
) -> Job:
    """Queue a locked job that has ended otherwise than well, as if it were new."""
    place = place_of(connection, row["kind"], row["owner"], row["request"], now)
    fresh = {
        **place.columns,
        "attempt": 1,
        "max_attempts": max_attempts,
        "cancel_requested": False,
        "progress": None,
        "error": None,
        "started_at": None,
        "finished_at": None,
        "traceparent": traceparent(),
    }
    if row["state"] == "failed":
        fresh["checkpoint"] = None
    moved = move(
        connection, row["id"], before=row["state"], after="queued", now=now, **fresh
    )
    assert moved is not None, "the row is locked"
    data = {"state": "queued", "retried_after": row["state"]}
    add_event(connection, row["id"], "status", "queued again by request", now, data)
    return as_job(moved)
