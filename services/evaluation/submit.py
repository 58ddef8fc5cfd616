"""Evaluation jobs on their way to the queue."""

from typing import Any

from services.datasets import Datasets
from services.evaluation.request import KIND, EvaluationJob, plan
from services.jobs import Jobs
from services.lifecycle import Job
from services.registry import Registry
from services.submission import submit_planned


class Evaluations:
    """What gives an evaluation job to the queue.

    Args:
        registry: Where the versions are looked up.
        datasets: Where the dataset is looked up.
        jobs: The queue.
    """

    def __init__(self, registry: Registry, datasets: Datasets, jobs: Jobs) -> None:
        self.registry = registry
        self.datasets = datasets
        self.jobs = jobs

    def submit(
        self,
        job: EvaluationJob,
        *,
        owner: str,
        idempotency_key: str | None = None,
        validate_only: bool = False,
    ) -> tuple[Job | dict[str, Any], bool]:
        """Check a job as a whole and queue it, once per idempotency key and owner.

        Args:
            job: What was asked.
            owner: Whose job it is.
            idempotency_key: The caller's name for this submission.
            validate_only: Check, and queue nothing.

        Returns:
            The job (what its row would keep, with ``validate_only``), and whether it
            was there already under that key.

        Raises:
            NotFound: There is no such model, version or alias.
            Invalid: What cannot be used, where, and what belongs there; or the key was
                used before for another request.
        """
        return submit_planned(
            self.jobs,
            KIND,
            job.model_dump(mode="json", exclude_unset=True),
            lambda: self._plan(job),
            owner=owner,
            idempotency_key=idempotency_key,
            validate_only=validate_only,
        )

    def _plan(self, job: EvaluationJob) -> dict[str, Any]:
        versions = [
            self.registry.resolve(each, field=f"/models/{index}")
            for index, each in enumerate(job.models)
        ]
        return plan(job, versions, self.datasets.asked(job.dataset))
