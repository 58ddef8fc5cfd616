"""Rollout jobs on their way to the queue: arrays to the store, the rest to the row."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from services.datasets import DatasetRecord, Datasets
from services.errors import Unavailable
from services.identity import new_id, sha256
from services.jobs import Jobs
from services.lifecycle import Job
from services.results import KIND, Results
from services.rollouts.job_request import JobLimits, RolloutJob, plan
from services.rollouts.served import Served
from services.settings import Settings
from services.work_folder import working
from spnode_core.errors import InvalidInput
from spnode_core.npz import write_npz


class RolloutJobs:
    """What gives a rollout job to the queue.

    Args:
        settings: Limits, and the folder to work in.
        datasets: Where a job's dataset is looked up.
        jobs: The queue.
        results: Where arrays are kept.
    """

    def __init__(
        self, settings: Settings, datasets: Datasets, jobs: Jobs, results: Results
    ) -> None:
        self.settings = settings
        self.limits = JobLimits.of(settings)
        self.datasets = datasets
        self.jobs = jobs
        self.results = results

    def submit(
        self,
        job: RolloutJob,
        served: Served,
        sent: Path | None = None,
        *,
        owner: str,
        idempotency_key: str | None = None,
        validate_only: bool = False,
    ) -> tuple[Job | dict[str, Any], bool]:
        """Check a job as a whole and queue it, once per idempotency key and owner.

        Args:
            job: What was asked.
            served: The version that ``job.model`` stands for.
            sent: A file with the arrays, where ``job`` has none.
            owner: Whose job it is.
            idempotency_key: The caller's name for this submission.
            validate_only: Check, and queue nothing.

        Returns:
            The job (what its row would keep, with ``validate_only``), and whether it
            was there already under that key.

        Raises:
            Invalid: The dataset does not exist, or the key was used before.
            InvalidInput: What cannot be used, where, and what belongs there.
        """
        with self._arrays(job, sent) as path:
            kept = plan(job, served, path, self._dataset(job), self.limits)
            if validate_only:
                return kept, False
            id = new_id("job", now=self.jobs.clock())
            try:
                if path is not None:
                    kept["inputs"] = self.results.put_inputs(id, path)
                queued, replayed = self.jobs.submit(
                    KIND,
                    kept,
                    owner=owner,
                    idempotency_key=idempotency_key,
                    # An alias may have moved between two tries of one submission.
                    request_hash=_digest(job, kept.get("inputs")),
                    id=id,
                )
            except Unavailable:
                # The job may be there, only the answer lost: the sweep knows later.
                raise
            except BaseException:
                self.results.delete_contents(id)
                raise
        if replayed:
            self.results.delete_contents(id)
        return queued, replayed

    def submitted(
        self, job: RolloutJob, sent: Path | None, owner: str, key: str | None
    ) -> Job | None:
        """Return the job that was submitted under a key before, if there is one.

        Raises:
            Invalid: The key was used before for another request.
        """

        def digest() -> str:
            with self._arrays(job, sent) as path:
                return _digest(job, None if path is None else sha256(path))

        return self.jobs.submitted(owner, key, digest)

    def _dataset(self, job: RolloutJob) -> DatasetRecord | None:
        return None if job.dataset is None else self.datasets.asked(job.dataset)

    @contextlib.contextmanager
    def _arrays(self, job: RolloutJob, sent: Path | None) -> Iterator[Path | None]:
        """A file of the arrays, wherever they came from; None without any."""
        arrays = job.arrays
        if sent is not None:
            for name in arrays:
                raise InvalidInput(
                    name, found="numbers in `request`", expected="an array of the file"
                )
            yield sent
            return
        if not arrays:
            yield None
            return
        with working(self.settings, "arrays") as folder:
            path = folder / "arrays.npz"
            write_npz(path, arrays)
            yield path


def _digest(job: RolloutJob, inputs: str | None) -> str:
    """Of what the caller sent, whatever its model stands for now."""
    return sha256(json.dumps([job.written, inputs], sort_keys=True).encode())
