"""One job from claim to end: its files, its child, and what is published.

A result is published in one transaction that first checks the claim, so a job ends once
and a version exists once, whatever is killed when: before the commit nothing is there
but contents that nobody refers to, after it everything is.
"""

import contextlib
import functools
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from opentelemetry.trace import Span, SpanKind, StatusCode

from services.blobs import Damaged
from services.claims import CancelRequested, Claim, DeadlineExceeded, MustEnd
from services.database.candidate_rows import SWEEP
from services.datasets import PREFIX as DATASETS
from services.errors import (
    Conflict,
    LeaseLost,
    NotFound,
    ServiceError,
    Unavailable,
    as_dict,
    is_disk_full,
)
from services.job_files import CHECKPOINT, DATASET
from services.logs import of_job
from services.metrics import ATTEMPTS, JOB_SECONDS, LEASES_LOST
from services.schedule import LATE
from services.traces import span
from worker.chunks import fetch_artifact, fetch_rollout, publish_result
from worker.context import Context
from worker.keeper import Keeper
from worker.publishing import publish_version
from worker.store_calls import unless_ended, until_answered
from worker.supervisor import Ending, Supervisor, checkpoint_prefix
from worker.sweeps import (
    candidate_ended,
    fetch_candidates,
    publish_ranking,
)

log = logging.getLogger("spnode.worker")

# How long a database that was away is left alone.
_AGAIN_S = 0.5


def run_job(context: Context, server: ForkServerContext, queue: str) -> None:
    """Run the first job of a queue; every ending is written to its row.

    Args:
        context: The worker's services.
        server: Where children start from.
        queue: Where the worker was told that a job waits.
    """
    try:
        claim = context.leases.claim(queue, context.name)
    except Unavailable as error:
        log.warning("no job of %s can be claimed: %s", queue, error)
        return
    if claim is None:
        log.info("no job waits in %s", queue)
        return
    log.info("job %s: attempt %d", claim.job.id, claim.job.attempt)
    began = time.monotonic()
    with of_job(claim.job.id), _traced(claim) as made:
        ending = _run(context, server, claim)
        made.set_attribute("spnode.ending", ending)
        if ending in ("crashed", "lost"):
            made.set_status(StatusCode.ERROR)
    ATTEMPTS.labels(claim.job.kind, ending).observe(time.monotonic() - began)
    if ending in ("done", "failed", "cancelled"):
        since = context.database.clock() - claim.job.created_at.timestamp()
        JOB_SECONDS.labels(claim.job.kind, ending).observe(since)
    if claim.job.parent is not None:
        candidate_ended(context, claim.job.parent)


def _traced(claim: Claim) -> AbstractContextManager[Span]:
    """A span of an attempt, in the trace of the request that queued the job."""
    job = claim.job
    attributes = {
        "spnode.job_id": job.id,
        "spnode.attempt": job.attempt,
        "spnode.queue": job.queue,
    }
    kind = SpanKind.CONSUMER
    return span(f"job {job.kind}", attributes, parent=job.traceparent or "", kind=kind)


def _run(context: Context, server: ForkServerContext, claim: Claim) -> str:
    """Run an attempt to its end, and say in a word how it ended."""
    id = claim.job.id
    try:
        return _attempt_or_end(context, server, claim)
    except LeaseLost as error:
        attempt = claim.job.attempt
        log.warning("%s gives up attempt %d: %s", context.name, attempt, error)
        LEASES_LOST.inc()
        return "lost"
    except Exception as error:  # the task boundary
        is_full = isinstance(error, OSError) and is_disk_full(error)
        if is_full or isinstance(error, Unavailable):
            _put_off(context, claim, error)
            return "put off"
        log.exception("job %s", id)
        _crash(context, claim, error)
        return "crashed"


def _attempt_or_end(context: Context, server: ForkServerContext, claim: Claim) -> str:
    try:
        return _attempt(context, server, claim)
    except CancelRequested:
        context.leases.cancel(claim)
        log.info("job %s: cancelled", claim.job.id)
        return "cancelled"
    except DeadlineExceeded:
        context.leases.fail(claim, LATE)
        log.info("job %s: its deadline has passed", claim.job.id)
        return "failed"


def _put_off(context: Context, claim: Claim, error: Exception) -> None:
    log.warning("job %s: %s", claim.job.id, error)
    until = time.monotonic() + context.settings.lease_seconds
    told = error.message if isinstance(error, Unavailable) else error
    reason = f"{told}; the job waits"[:2000]
    with contextlib.suppress(LeaseLost):
        # Later the lease has ended, and who takes the job back counts an attempt.
        while time.monotonic() < until:
            try:
                return context.leases.put_off(claim, reason)
            except Unavailable:
                time.sleep(_AGAIN_S)


def _crash(context: Context, claim: Claim, error: Exception) -> None:
    with contextlib.suppress(LeaseLost, Unavailable):
        context.leases.crash(claim, f"{type(error).__name__}: {error}"[:2000])


def _attempt(context: Context, server: ForkServerContext, claim: Claim) -> str:
    with _folder(context, claim) as folder, Keeper(context, claim) as keeper:
        try:
            with span("fetch"):
                fetch = functools.partial(_fetch, context, claim, folder, keeper.check)
                unless_ended(keeper.check, fetch)
        except (NotFound, Damaged) as error:
            context.leases.fail(claim, as_dict(error))
            return "failed"
        keeper.check()
        supervisor = Supervisor(context, server, claim, keeper, folder)
        with span("compute"):
            ending = supervisor.run()
        with span("publish"):

            def end() -> None:
                supervisor.flush()
                _end(context, claim, folder, ending)

            if ending.type == "unavailable":
                end()
            until_answered(keeper.check, end, context.stopping)
        return ending.type


def _end(context: Context, claim: Claim, folder: Path, ending: Ending) -> None:
    log.info("job %s: %s", claim.job.id, ending.type)
    match ending.type:
        case "done":
            outcome = ending.message["outcome"]
            try:
                publish(context, claim, folder, outcome)
            except (NotFound, Damaged, Conflict) as error:
                context.leases.fail(claim, as_dict(error))
            _forget_checkpoints(context, claim)
        case "failed":
            context.leases.fail(claim, ending.message["error"])
            _forget_checkpoints(context, claim)
        case "unavailable":
            # Not the job's fault, wherever it was noticed.
            told = ending.message
            raise Unavailable(told["reason"], reason=told.get("cause"))
        case "stopped":
            context.leases.release(claim, "the worker stopped; the job is queued again")
        case _:
            if "trace" in ending.message:
                log.error("job %s:\n%s", claim.job.id, ending.message["trace"])
            context.leases.crash(claim, ending.message["reason"])


def publish(
    context: Context, claim: Claim, folder: Path, outcome: dict[str, Any]
) -> None:
    """Keep what the child made and end the job with it.

    Raises:
        LeaseLost: The job is another's; nothing was published.
        MustEnd: The caller cancelled first, or time was up; nothing was published.
    """
    if claim.job.kind == "training":
        _publish_version(context, claim, folder, outcome)
    elif claim.job.kind == "rollout":
        publish_result(context, claim, outcome)
    elif claim.job.kind == "calibration":
        _publish_in_row(
            context, claim, outcome, f"{len(outcome['estimates'])} estimates"
        )
    elif claim.job.kind == "evaluation":
        compared = f"{len(outcome['surrogates'])} versions compared"
        _publish_in_row(context, claim, outcome, compared)
    elif claim.job.kind == SWEEP:
        publish_ranking(context, claim, folder, outcome)
    else:
        _publish_dataset(context, claim, folder, outcome)


def _publish_version(
    context: Context, claim: Claim, folder: Path, outcome: dict[str, Any]
) -> None:
    job, name = claim.job, claim.job.request["model"]

    def end(connection: sa.Connection, number: int, digest: str) -> None:
        result = {
            "model": name,
            "version": number,
            "digest": digest,
            "scaled_mse": _errors(outcome["evaluation"]),
        }
        message = f"version {number} of {name}"
        context.leases.succeed(connection, claim, result, message)

    publish_version(
        context,
        claim,
        folder,
        outcome,
        end,
        alias=job.request.get("alias"),
        is_candidate=job.parent is not None,
    )


def _publish_in_row(
    context: Context, claim: Claim, outcome: dict[str, Any], message: str
) -> None:
    """The row holds all of it: a few numbers for each observation, unknown, state."""
    with context.database.transaction() as connection:
        context.leases.guard(connection, claim)
        context.leases.succeed(connection, claim, outcome, message)


def _publish_dataset(
    context: Context, claim: Claim, folder: Path, outcome: dict[str, Any]
) -> None:
    path = folder / DATASET
    digest = context.blobs.put_content(DATASETS, path)
    try:
        with context.database.transaction() as connection:
            record = context.datasets.register(
                connection,
                digest=digest,
                size_bytes=path.stat().st_size,
                summary=outcome["summary"],
                owner=claim.job.owner,
                project=claim.job.project,
                name=outcome["name"],
                job_id=claim.job.id,
                guard=functools.partial(context.leases.guard, connection, claim),
            )
            result = {"dataset": record.id}
            context.leases.succeed(connection, claim, result, f"dataset {record.id}")
    except (LeaseLost, MustEnd):
        context.datasets.drop_content(digest)
        raise


def _errors(evaluation: dict[str, Any]) -> dict[str, Any]:
    return {
        part: metrics["scaled_mse"] for part, metrics in evaluation.items() if metrics
    }


def _fetch(
    context: Context, claim: Claim, folder: Path, check: Callable[[], None]
) -> None:
    """Bring the inputs, and the checkpoint of an earlier attempt, into the folder."""
    request = claim.job.request
    dataset = request.get("dataset")
    if dataset is not None:
        context.datasets.download(dataset, folder / DATASET)
    if claim.job.kind == SWEEP:
        fetch_candidates(context, claim, folder, check)
    if claim.job.kind == "rollout":
        fetch_rollout(context, claim, folder, check)
    if claim.job.kind == "calibration":
        fetch_artifact(context, request["digest"], folder)
    if request.get("parent") is not None:
        fetch_artifact(context, request["parent"]["digest"], folder)
    for version in request.get("versions", ()):
        fetch_artifact(context, version["digest"], folder)
    if claim.checkpoint is None:
        return
    key = f"{checkpoint_prefix(claim.job.id)}/{claim.checkpoint}"
    try:
        context.blobs.download(key, folder / CHECKPOINT)
    except (NotFound, Damaged) as error:
        log.warning("job %s starts anew: %s", claim.job.id, error)


def _forget_checkpoints(context: Context, claim: Claim) -> None:
    try:
        context.orphans.drop_checkpoints(claim.job.id)
    except ServiceError as error:
        log.warning("job %s: its checkpoints stay: %s", claim.job.id, error)


@contextlib.contextmanager
def _folder(context: Context, claim: Claim) -> Iterator[Path]:
    # Who was left waiting for the store may still write into that of an attempt before.
    name = f"{context.name.replace(':', '-')}-{claim.job.id}-{claim.token}"
    folder = context.work_folder / name
    folder.mkdir(parents=True, mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
