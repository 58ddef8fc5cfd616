"""Rollout jobs: what a caller asks for, and how it is cut into chunks of rows.

A job is checked as a whole before it is queued: the version is fixed, every number is
finite, names and shapes fit. What is kept is small; arrays go to the store.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field

from services.datasets import DatasetRecord
from services.rollouts.canonical import canonical
from services.rollouts.request import ARRAYS, Arrays, Request, add_array
from services.rollouts.rows import (
    NUMERIC,
    AbstractRows,
    DatasetRows,
    SentRows,
    SweepRows,
    sent_members,
)
from services.rollouts.served import Served
from services.rollouts.sweep import grid_of
from services.rollouts.wire import (
    MatrixOrTensor,
    Options,
    SpacedTimes,
    StateOrStates,
    SteppedTimes,
    Sweep,
    Times,
    Vector,
)
from services.rollouts.work import Layout, Limits, Work
from services.schedule import Scheduled
from services.settings import Settings
from spnode_core.errors import InvalidInput
from spnode_core.npz import Member
from spnode_core.spec import Signature

# Rows of the engine's largest tiles: a chunk of whole ones wastes none.
_ROUND_ROWS = (256, 32)
# Of sent rows that are read to be checked, at a time.
_BLOCK_BYTES = 8 * 2**20


class RolloutJob(Options, Scheduled):
    """Roll out more rows than one answer holds; the result goes to the store.

    Rows are those of ``x0``, of a dataset's trajectories, or of a sweep's grid.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "kind": "rollout",
                    "model": "robertson",
                    "dataset": "ds_01k9x3w5c7b2m4n6p8q0r2s4t6",
                    "times": {
                        "start": 1e-5,
                        "stop": 1e5,
                        "count": 50,
                        "spacing": "log",
                    },
                    "on_error": "mask",
                }
            ]
        }
    )

    kind: Literal["rollout"] = "rollout"
    times: Times | None = None
    """Times of the output, measured from the start of the rollout; required, but for a
    file of arrays that holds them."""
    x0: StateOrStates | None = None
    """One state, or a list of states."""
    dataset: str | None = None
    """Id of a dataset whose trajectories give the initial states, and the parameters
    where ``parameters`` does not."""
    parameters: StateOrStates | None = None
    """One vector for all rows, or one a row."""
    controls: MatrixOrTensor | None = None
    """Controls held from each control time on, for all rows or a row."""
    control_times: Vector | None = None
    """Times at which the controls switch; the first is 0."""

    @property
    def written(self) -> dict[str, Any]:
        """All that the request says beside its arrays; JSON."""
        said = self.model_dump(
            mode="json", exclude_unset=True, exclude={*ARRAYS, "times"}
        )
        if isinstance(self.times, SpacedTimes | SteppedTimes):
            said["times"] = self.times.model_dump(mode="json", exclude_unset=True)
        return said

    @property
    def arrays(self) -> Arrays:
        """The arrays that the request holds.

        Raises:
            InvalidInput: A list of lists whose rows differ in length.
        """
        found: Arrays = {}
        for name in ARRAYS:
            add_array(found, name, getattr(self, name))
        if isinstance(self.times, list):
            add_array(found, "times", self.times)
        return found


class PlannedRollout(Options, Scheduled):
    """A rollout job as its row keeps it: checked, its version fixed, without arrays."""

    kind: Literal["rollout"] = "rollout"
    times: SpacedTimes | SteppedTimes | None = None
    dataset: str | None = None
    version: int
    """The number that ``model`` stood for when the job was submitted."""
    digest: str
    """Its artifact."""
    rows: int
    chunk_rows: int
    arrays: Annotated[dict[str, list[int]], Field(default_factory=dict)]
    """Shapes of the arrays that were sent."""
    inputs: str | None = None
    """Digest of their file."""

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return math.ceil(self.rows / self.chunk_rows)


@dataclass(frozen=True)
class JobLimits:
    """What a rollout job may ask for."""

    rows: int
    times: int
    result_bytes: int
    chunk_bytes: int
    """Of one chunk, so of one row too."""
    upload_bytes: int

    @classmethod
    def of(cls, settings: Settings) -> "JobLimits":
        """The limits that a deployment sets."""
        return cls(
            settings.max_job_rows,
            settings.max_times,
            settings.max_result_bytes,
            settings.result_chunk_bytes,
            settings.max_upload_bytes,
        )


def plan(
    job: RolloutJob,
    served: Served,
    path: Path | None,
    dataset: DatasetRecord | None,
    limits: JobLimits,
) -> dict[str, Any]:
    """Check a job as a whole; return what its row keeps.

    Args:
        job: What was asked, but for the arrays.
        served: The version that ``model`` stands for.
        path: The file of the arrays that were sent, if there were any.
        dataset: The dataset that the job names, if it names one.
        limits: What it may ask for.

    Raises:
        InvalidInput: What cannot be used, where, and what belongs there.
    """
    if path is None:
        return _plan(job, served, {}, dataset, limits)
    with sent_members(path, limits.upload_bytes) as members:
        return _plan(job, served, members, dataset, limits)


def request_of(
    options: Options, times: SpacedTimes | SteppedTimes | None, arrays: Arrays
) -> Request:
    """Some rows of a job as the request that gives their chunk.

    Raises:
        InvalidInput: There are no times, or two forms of them.
    """
    if times is None and "times" not in arrays:
        raise InvalidInput("times", found="nothing", expected="the times of the output")
    if times is not None and "times" in arrays:
        raise InvalidInput("times", found="two forms of them", expected="one")
    # The rows of a sweep are made a chunk at a time.
    options = options.model_copy(update={"sweep": None})
    return Request("rollout", options, arrays, times)


def rows_of(
    sweep: Sweep | None,
    dataset: dict[str, Member] | None,
    members: dict[str, Member],
    signature: Signature,
    most: int,
) -> AbstractRows:
    """The rows that a job stands for.

    Args:
        sweep: Its sweep, if it has one.
        dataset: The arrays of its dataset, if it has one.
        members: The arrays that were sent.
        signature: What the version takes.
        most: How many rows there may be.

    Raises:
        InvalidInput: They do not fit together.
    """
    sent = SentRows(members)
    if sweep is not None:
        return SweepRows(grid_of(sweep, sent.shared, signature, most), sent.shared)
    if dataset is None:
        return sent
    names = dataset["names"].whole().tolist()
    columns = None
    if signature.parameters and "parameters" not in sent.shared:
        known = dataset["parameter_names"].whole().tolist()
        columns = [known.index(name) for name in signature.parameters]
    states = [names.index(name) for name in signature.states]
    return DatasetRows(dataset, states, columns, sent.shared)


def _plan(
    job: RolloutJob,
    served: Served,
    members: dict[str, Member],
    dataset: DatasetRecord | None,
    limits: JobLimits,
) -> dict[str, Any]:
    signature = served.signature
    _check_sources(job, members)
    rows = rows_of(job.sweep, None, members, signature, limits.rows)
    count = rows.count
    if dataset is not None:
        _check_dataset(dataset, signature, members)
        count = dataset.trajectories
    if count > limits.rows:
        raise InvalidInput(
            _source(job), found=f"{count} rows", expected=f"at most {limits.rows}"
        )
    first = rows.first if isinstance(rows, SentRows) else rows.take(1)
    first = first | _stand_in(dataset, signature, members)
    times = None if isinstance(job.times, list) else job.times
    allowed = Limits(limits.rows, limits.times, limits.chunk_bytes // 8)
    work, layout = canonical(request_of(job, times, first), served, allowed)
    if dataset is None and job.sweep is None:
        _check_rest(rows, first)
    if layout.coverage is not None:
        raise InvalidInput(
            "intervals",
            found=repr(layout.coverage),
            expected="none in a rollout job; spnode_core.interval_bounds gives them "
            "from the signature and x",
        )
    kept, computed = _row_bytes(work, layout, signature)
    if kept * count > limits.result_bytes:
        raise InvalidInput(
            _source(job),
            found=f"a result of {kept * count} bytes, {count} rows of {kept}",
            expected=f"at most {limits.result_bytes}; ask for fewer rows, times or "
            "states",
        )
    return {
        **job.written,
        "kind": "rollout",
        "version": served.version,
        "digest": served.digest,
        "rows": count,
        "chunk_rows": _chunk_rows(computed, limits.chunk_bytes),
        "arrays": {
            name: list(members[name].shape) for name in NUMERIC if name in members
        },
    }


def _check_sources(job: RolloutJob, members: dict[str, Member]) -> None:
    """Exactly one of arrays, a dataset and a sweep gives the rows."""
    if job.dataset is not None and job.sweep is not None:
        raise InvalidInput("sweep", found="it beside a dataset", expected="one of both")
    if job.dataset is None and job.sweep is None and "x0" not in members:
        raise InvalidInput(
            "x0", found="nothing", expected="initial states, a dataset or a sweep"
        )
    if job.dataset is not None and "x0" in members:
        raise InvalidInput(
            "x0", found="states beside a dataset", expected="one of both"
        )
    if job.dataset is None and job.sweep is None:
        return
    for name, rank in (("parameters", 1), ("controls", 2)):
        if name in members and len(members[name].shape) > rank:
            raise InvalidInput(
                name,
                found=f"an array of shape {members[name].shape}",
                expected="the same for all rows, beside a dataset or a sweep",
            )


def _check_dataset(
    dataset: DatasetRecord, signature: Signature, members: dict[str, Member]
) -> None:
    wanted = {"states": signature.states}
    if "parameters" not in members:
        wanted["parameters"] = signature.parameters
    for noun, names in wanted.items():
        known = getattr(dataset, noun)
        missing = [name for name in names if name not in known]
        if missing:
            raise InvalidInput(
                "dataset",
                found=f"{dataset.id!r}, which has the {noun} {', '.join(known[:20])}",
                expected=f"one that has {', '.join(missing[:20])} too",
            )


def _stand_in(
    dataset: DatasetRecord | None, signature: Signature, members: dict[str, Member]
) -> Arrays:
    """A row in place of a dataset's first, to check all else with."""
    if dataset is None:
        return {}
    found = {"x0": np.zeros((1, len(signature.states)))}
    if signature.parameters and "parameters" not in members:
        found["parameters"] = np.zeros((1, len(signature.parameters)))
    return found


def _check_rest(rows: AbstractRows, first: Arrays) -> None:
    """Read all other rows, a bounded number at a time: each number must be finite."""
    size = sum(array.nbytes for array in first.values())
    block = max(1, _BLOCK_BYTES // size)
    left = rows.count - 1
    while left > 0:
        rows.take(min(block, left))
        left -= block


def _row_bytes(work: Work, layout: Layout, signature: Signature) -> tuple[int, int]:
    """Bytes of a row in the result, and while it is computed, with its inputs."""
    times = 1 if layout.final else len(layout.times)
    latent = signature.latent if work.operation == "latent" else 0
    states = len(signature.states)
    kept = states if layout.states is None else len(layout.states)
    inputs = sum(array[:1].nbytes for array in work.rows.values())
    kept, states = kept * (1 + layout.spread), states * min(work.members, 2)
    return 8 * times * (kept + latent) + 1, 8 * times * (states + latent) + inputs


def _chunk_rows(row_bytes: int, chunk_bytes: int) -> int:
    rows = max(1, chunk_bytes // row_bytes)
    unit = next((unit for unit in _ROUND_ROWS if rows >= unit), 1)
    return rows - rows % unit


def _source(job: RolloutJob) -> str:
    """The field that gives the rows."""
    if job.sweep is not None:
        return "sweep"
    return "x0" if job.dataset is None else "dataset"
