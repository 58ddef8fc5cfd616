"""The work of a rollout job, in a process of its own: chunk after chunk of its rows.

::

    rows ─take─▶ request ─canonical─▶ engine ─answer─▶ npz file ──told──▶ parent
      ▲                                                                    │
      └──────────── at most two files wait for the parent ◀──kept──────────┘

So memory is that of a few chunks, whatever the number of rows. Chunks that an earlier
attempt has made are left out.
"""

import contextlib
import json
import resource
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from services.blobs import Blobs
from services.errors import RolloutFailed
from services.identity import sha256
from services.job_files import DATASET, DONE, INPUTS, STORE
from services.rollouts.answer import Fields, answer
from services.rollouts.canonical import canonical
from services.rollouts.engine import Engine
from services.rollouts.job_request import PlannedRollout, request_of, rows_of
from services.rollouts.request import Arrays
from services.rollouts.rows import (
    AbstractRows,
    SweepRows,
    dataset_members,
    sent_members,
)
from services.rollouts.served import Served
from services.rollouts.work import Limits
from services.settings import Settings
from services.versions import ARTIFACTS
from spnode_core.artifact_file import read_spec
from spnode_core.npz import EARLIEST
from spnode_core.spec import Signature
from spnode_core.training.fit import Stopped

Report = Callable[[dict[str, Any]], None]
# The job was checked against the limits when it was submitted.
# What a job has left when it is worth some seconds to try larger tiles.
_WORTH_TRYING_S = 20.0
_NO_LIMITS = Limits(rows=2**62, times=2**62, output_values=2**62)


def run_rollout(
    job: PlannedRollout,
    folder: Path,
    settings: Settings,
    *,
    report: Report,
    wait_for_room: Callable[[], None],
    should_stop: Callable[[], str | None],
) -> dict[str, Any]:
    """Compute every chunk that is not there yet.

    Args:
        job: What to compute.
        folder: Holds the artifact, the inputs, and the numbers of the chunks done.
        settings: Those of the worker.
        report: Told of each chunk: its number, first row, rows, file, digest, size.
        wait_for_room: Returns when fewer than two files wait for the parent.
        should_stop: Asked before each chunk; a reason ends the work.

    Returns:
        What the index of the result says, but for its chunks, and the most memory that
        this process had.

    Raises:
        Stopped: ``should_stop`` gave a reason.
        RolloutFailed: A row left the finite range, and the job does not mask.
    """
    served = _served(job, folder)
    engine = Engine(settings, Blobs((folder / STORE).absolute().as_uri()))
    done = set(json.loads((folder / DONE).read_text()))
    with _rows(job, folder, served.signature, settings) as rows:
        described = _described(job, served, rows)
    with _rows(job, folder, served.signature, settings) as rows:
        is_compiled = False
        for number in range(job.chunks):
            start = number * job.chunk_rows
            count = min(job.chunk_rows, job.rows - start)
            if number in done:
                rows.skip(count)
                continue
            if (reason := should_stop()) is not None:
                raise Stopped(reason)
            path, began = folder / f"chunk-{number:06d}.npz", time.monotonic()
            facts = _write_chunk(path, engine, job, served, rows.take(count), start)
            report(
                {"type": "chunk", "number": number, "start": start, "rows": count}
                | {"file": path.name, **facts}
            )
            left = (time.monotonic() - began) * (job.chunks - number - 1)
            # The first one compiles, and tells nothing of the others.
            while is_compiled and left > _WORTH_TRYING_S and engine.idle():
                pass  # larger tiles for the chunks to come
            is_compiled = True
            wait_for_room()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"index": described, "peak_memory_bytes": peak}


def _write_chunk(
    path: Path,
    engine: Engine,
    job: PlannedRollout,
    served: Served,
    arrays: Arrays,
    start: int,
) -> dict[str, Any]:
    """Compute some rows and write their answer; say what came of it."""
    request = request_of(job, job.times, arrays)
    work, layout = canonical(request, served, _NO_LIMITS)
    results = engine.run(
        work.operation, work.digest, {**work.rows, **work.shared}, work.variant
    )
    try:
        fields = answer(request, served, work, layout, results)
    except RolloutFailed as error:
        row, has_others = error.row + start, error.has_others or start > 0
        raise RolloutFailed(row=row, time=error.time, has_others=has_others) from error
    members = _members(fields, start)
    _write(path, members)
    return {
        "digest": sha256(path),
        "size_bytes": path.stat().st_size,
        "failed": len(members["failed"]),
        "outside": int((~members["inside"]).sum()),
    }


def _members(fields: Fields, start: int) -> Arrays:
    """The arrays of a chunk; rows are counted from the first of the whole result."""
    failed = fields.get("rows", [])
    members: Arrays = {
        "start": np.array(start),
        "times": fields["times"],
        "x": fields["x"],
        "inside": np.array(fields["domain"]["inside"], bool),
        "failed": np.array([each["row"] + start for each in failed], np.int64),
        "failed_times": np.array([each["time"] for each in failed], np.float64),
    }
    for name in ("z", "spread"):
        if name in fields:
            members[name] = fields[name]
    if "outside" in fields["domain"]:
        listed = [
            each | ({"row": each["row"] + start} if "row" in each else {})
            for each in fields["domain"]["outside"]
        ]
        members["outside"] = np.array(json.dumps(listed))
    return members


def _write(path: Path, members: Mapping[str, np.ndarray]) -> None:
    """Write an npz file with repeatable bytes; numbers hardly compress."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in members.items():
            info = zipfile.ZipInfo(f"{name}.npy", EARLIEST)
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _described(
    job: PlannedRollout, served: Served, rows: AbstractRows
) -> dict[str, Any]:
    """What all chunks have in common, found on the first row."""
    request = request_of(job, job.times, rows.take(1))
    work, layout = canonical(request, served, _NO_LIMITS)
    names = served.signature.states
    chosen = names if layout.states is None else [names[i] for i in layout.states]
    times = work.shared["times"].tolist()
    axis = [] if layout.final else [len(times)]
    return {
        "model": served.model,
        "version": served.version,
        "digest": served.digest,
        "states": list(chosen),
        "times": times,
        "shape": [job.rows, *axis, len(chosen)],
        "latent": served.signature.latent if work.operation == "latent" else None,
        "spread": layout.spread,
        "rows": job.rows,
        "chunk_rows": job.chunk_rows,
        **({"sweep": rows.grid.describe()} if isinstance(rows, SweepRows) else {}),
    }


def _served(job: PlannedRollout, folder: Path) -> Served:
    spec = read_spec(folder / STORE / ARTIFACTS / job.digest)
    name = job.model.partition("@")[0].partition("/")[0]
    return Served(name, job.version, job.digest, spec.signature, spec.surrogate)


@contextlib.contextmanager
def _rows(
    job: PlannedRollout, folder: Path, signature: Signature, settings: Settings
) -> Iterator[AbstractRows]:
    """The rows of a job, from the first on."""
    limit = settings.max_upload_bytes
    with contextlib.ExitStack() as stack:
        members, dataset = {}, None
        if job.inputs is not None:
            sent = sent_members(folder / INPUTS, limit)
            members = stack.enter_context(sent)
        if job.dataset is not None:
            # Checked when it came, and packed better than it was then.
            stored = dataset_members(folder / DATASET, 2**62)
            dataset = stack.enter_context(stored)
        yield rows_of(job.sweep, dataset, members, signature, job.rows)
