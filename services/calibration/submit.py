"""Calibration jobs on their way to the queue."""

from typing import Any

from services.calibration.request import KIND, CalibrationJob, plan
from services.jobs import Jobs
from services.lifecycle import Job
from services.registry import Registry
from services.settings import Settings
from services.submission import submit_planned


class Calibrations:
    """What gives a calibration job to the queue.

    Args:
        settings: Limits.
        registry: Where the version is looked up.
        jobs: The queue.
    """

    def __init__(self, settings: Settings, registry: Registry, jobs: Jobs) -> None:
        self.settings = settings
        self.registry = registry
        self.jobs = jobs

    def submit(
        self,
        job: CalibrationJob,
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
            Invalid: The key was used before for another request.
            InvalidInput: What cannot be used, where, and what belongs there.
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

    def _plan(self, job: CalibrationJob) -> dict[str, Any]:
        return plan(job, self.registry.resolve(job.model), self.settings)
