"""A version that a job made: kept in the store, then in the registry with its end."""

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from services.claims import Claim, MustEnd
from services.errors import LeaseLost
from services.job_files import ARTIFACT
from services.versions import ARTIFACTS
from worker.context import Context

log = logging.getLogger("spnode.worker")


def publish_version(
    context: Context,
    claim: Claim,
    folder: Path,
    made: dict[str, Any],
    end: Callable[[sa.Connection, int, str], None],
    *,
    alias: str | None = None,
    is_candidate: bool = False,
) -> None:
    """Keep an artifact and publish it in the transaction that ends its job.

    Args:
        context: The worker's services.
        claim: The job.
        folder: Has the artifact.
        made: What the registry keeps beside it.
        end: Ends the job, told the version's number and the artifact's digest.
        alias: Pointed at the version.
        is_candidate: Somebody else decides which aliases it gets.

    Raises:
        LeaseLost: The job is another's; nothing was published.
        MustEnd: The caller cancelled first, or time was up; nothing was published.
    """
    job, name = claim.job, claim.job.request["model"]
    digest = context.blobs.put_content(ARTIFACTS, folder / ARTIFACT)
    try:
        with context.database.transaction() as connection:
            number = context.registry.publish(
                connection,
                name,
                owner=job.owner,
                project=job.project,
                job_id=job.id,
                alias=alias,
                is_candidate=is_candidate,
                size_bytes=(folder / ARTIFACT).stat().st_size,
                guard=functools.partial(context.leases.guard, connection, claim),
                **{**made, "digest": digest},
            )
            end(connection, number, digest)
    except (LeaseLost, MustEnd):
        context.registry.drop_artifact(digest)
        raise
    log.info("job %s: published %s/%d", job.id, name, number)
