"""The chunks of a rollout job on their way from its child to the store.

A chunk is put into the store first and then gets its row, in a transaction that checks
the claim: a chunk with a row is whole, and a worker that lost its lease adds none.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.claims import Claim
from services.errors import NotFound
from services.job_files import DONE, INPUTS, STORE
from services.results import Chunk
from services.versions import ARTIFACTS
from worker.context import Context


def fetch_rollout(
    context: Context, claim: Claim, folder: Path, check: Callable[[], None]
) -> None:
    """Bring what a rollout job needs into its folder, but for its dataset.

    Args:
        context: The worker's services.
        claim: The job.
        folder: Its files.
        check: Raises where the job is not to go on.

    Raises:
        NotFound: The version or the inputs have been deleted.
        Damaged: One of them is damaged.
    """
    request, id = claim.job.request, claim.job.id
    fetch_artifact(context, request["digest"], folder)
    if request.get("inputs") is not None:
        context.results.download_inputs(id, request["inputs"], folder / INPUTS)
    done = _whole_chunks(context, claim, check)
    (folder / DONE).write_text(json.dumps(done))


def fetch_artifact(context: Context, digest: str, folder: Path) -> None:
    """Bring a version that a job needs into its folder.

    Raises:
        NotFound: It has been deleted.
        Damaged: It is damaged.
    """
    artifact = folder / STORE / ARTIFACTS / digest
    artifact.parent.mkdir(parents=True, exist_ok=True)
    context.blobs.download(f"{ARTIFACTS}/{digest}", artifact)


def _whole_chunks(
    context: Context, claim: Claim, check: Callable[[], None]
) -> list[int]:
    """Numbers of the chunks of earlier attempts; what is damaged is made anew."""
    results, id = context.results, claim.job.id
    whole, damaged = [], []
    for chunk in results.chunks(id):
        check()
        if results.is_whole(id, chunk):
            whole.append(chunk.number)
        else:
            damaged.append(chunk)
    for chunk in damaged:
        with context.database.transaction() as connection:
            # Under the lock: who takes the job over may put the same content again.
            context.leases.guard(connection, claim)
            with context.database.silent(connection):
                context.blobs.delete(chunk.key(id))
            results.forget_chunks(connection, id, [chunk])
    return whole


class ChunkKeeper:
    """Keeps the chunks that a child tells of.

    Args:
        context: The worker's services.
        claim: The job.
        folder: Its files.
    """

    def __init__(self, context: Context, claim: Claim, folder: Path) -> None:
        self._context = context
        self._claim = claim
        self._folder = folder
        self._began = time.monotonic()
        self._before = sum(chunk.rows for chunk in context.results.chunks(claim.job.id))
        self._kept = 0

    def keep(self, told: dict[str, Any]) -> dict[str, Any]:
        """Put a chunk into the store and add its row; return the job's progress.

        It may be called again, whatever became of it before.

        Raises:
            LeaseLost: The job is another's; the chunk was not added.
            MustEnd: The caller cancelled, or time is up; the chunk was not added.
            Unavailable: The store or the database does not answer.
        """
        context, id = self._context, self._claim.job.id
        path = self._folder / told["file"]
        chunk = Chunk(**{name: told[name] for name in Chunk.__dataclass_fields__})
        context.results.put_chunk(id, chunk, path)
        with context.database.transaction() as connection:
            context.leases.guard(connection, self._claim, goes_on=True)
            # The commit of an earlier try may have been done, and not heard of.
            context.results.forget_chunks(connection, id, [chunk])
            context.results.add_chunk(connection, id, chunk)
        path.unlink()
        self._kept += chunk.rows
        return self._progress()

    def _progress(self) -> dict[str, Any]:
        total = self._claim.job.request["rows"]
        done = self._before + self._kept
        seconds = time.monotonic() - self._began
        rate = self._kept / max(seconds, 1e-9)
        return {
            "stage": "rollout",
            "rows": done,
            "rows_total": total,
            "rows_per_second": round(rate, 1),
            "seconds": round(seconds, 3),
            "remaining_s": round((total - done) / rate, 3),
            "fraction": done / total,
        }


def publish_result(context: Context, claim: Claim, outcome: dict[str, Any]) -> None:
    """Write the index of a job's chunks, and end the job with it.

    Raises:
        LeaseLost: The job is another's; it did not end.
        MustEnd: The caller cancelled first, or time was up; it did not end.
        NotFound: A chunk is missing.
    """
    job, results = claim.job, context.results
    chunks = results.chunks(job.id)
    ends = [chunk.start + chunk.rows for chunk in chunks]
    if [0, *ends] != [*(chunk.start for chunk in chunks), job.request["rows"]]:
        raise NotFound("chunk", f"among {len(chunks)} of job {job.id}")
    totals = {
        name: sum(getattr(chunk, name) for chunk in chunks)
        for name in ("size_bytes", "failed", "outside")
    }
    index = {
        "job": job.id,
        **outcome["index"],
        **totals,
        "chunks": [vars(chunk) for chunk in chunks],
    }
    result = {
        **{name: outcome["index"][name] for name in ("rows", "shape")},
        **totals,
        "chunks": len(chunks),
        "digest": results.put_index(job.id, index),
        "peak_memory_bytes": outcome["peak_memory_bytes"],
    }
    with context.database.transaction() as connection:
        context.leases.guard(connection, claim)
        message = f"{result['rows']} rows in {len(chunks)} chunks"
        context.leases.succeed(connection, claim, result, message)
