"""Submissions that are planned first: looked up by their key, checked, queued."""

from collections.abc import Callable
from typing import Any

from services.database.idempotency import request_digest
from services.jobs import Jobs
from services.lifecycle import Job


def submit_planned(
    jobs: Jobs,
    kind: str,
    asked: dict[str, Any],
    plan: Callable[[], dict[str, Any]],
    *,
    owner: str,
    idempotency_key: str | None = None,
    validate_only: bool = False,
) -> tuple[Job | dict[str, Any], bool]:
    """Check a job as a whole and queue it, once per idempotency key and owner.

    Args:
        jobs: Queues it.
        kind: Of the job.
        asked: What the caller sent. A key belongs to this and not to what is planned,
            since an alias may move between two tries of one submission.
        plan: Gives what the row keeps; not asked where the key is known.
        owner: Whose job it is.
        idempotency_key: The caller's name for this submission.
        validate_only: Check, and queue nothing.

    Returns:
        The job (what its row would keep, with ``validate_only``), and whether it was
        there already under that key.

    Raises:
        Invalid: The key was used before for another request.
    """
    digest = request_digest(asked)
    if not validate_only:
        earlier = jobs.submitted(owner, idempotency_key, lambda: digest)
        if earlier is not None:
            return earlier, True
    kept = plan()
    if validate_only:
        return kept, False
    return jobs.submit(
        kind,
        kept,
        owner=owner,
        idempotency_key=idempotency_key,
        request_hash=digest,
    )
