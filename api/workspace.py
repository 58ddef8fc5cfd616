"""What a caller works with: the services of its project, and nothing of another's.

Routes have no other way to a dataset, a job or a model, so none of them can forget to
ask whose it is.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from api.deadlines import in_time
from services.blobs import Blobs
from services.calibration.submit import Calibrations
from services.database.engine import Database
from services.datasets import Datasets
from services.errors import NotFound
from services.evaluation.submit import Evaluations
from services.jobs import Jobs
from services.projects import Access
from services.queue import Queue
from services.registry import Registry
from services.results import Results
from services.rollouts.job_submit import RolloutJobs
from services.rollouts.served import Served
from services.settings import Settings
from services.sweeps.submit import Sweeps
from services.versions import LATEST
from spnode_core.spec import Signature, SurrogateSpec

_CACHED_REFERENCES = 4096


class Workspace:
    """The services as one project sees them.

    Args:
        settings: The deployment's settings.
        database: Where the rows are.
        blobs: Where the contents are.
        queue: Sends jobs to the workers.
        results: What jobs made; asked for with a job that the caller sees.
        sql: Calls a function off the event loop.
        in_store: The same for one that asks the store.
        access: What the caller sees.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        blobs: Blobs,
        queue: Queue,
        results: Results,
        sql: Callable[..., Awaitable[Any]],
        in_store: Callable[..., Awaitable[Any]],
        access: Access,
    ) -> None:
        self.access = access
        self.datasets = Datasets(database, blobs, settings, access=access)
        self.jobs = Jobs(
            database,
            queue,
            access=access,
            max_attempts=settings.max_attempts,
            room=(settings.max_queued_jobs, settings.queued_jobs_limit),
        )
        self.registry = Registry(database, blobs, access=access)
        self.rollout_jobs = RolloutJobs(settings, self.datasets, self.jobs, results)
        self.calibrations = Calibrations(settings, self.registry, self.jobs)
        self.evaluations = Evaluations(self.registry, self.datasets, self.jobs)
        self.sweeps = Sweeps(self.registry, self.datasets, self.jobs)
        self.sql = sql
        self.in_store = in_store
        self._believed_s = settings.version_cache_seconds
        self._references: dict[tuple[str, bool], tuple[float, Served]] = {}

    async def served(
        self,
        reference: str,
        *,
        or_latest: bool = False,
        deadline: float | None = None,
    ) -> Served:
        """The version that a reference stands for, believed for a few seconds.

        Args:
            reference: ``name``, ``name@alias``, ``name/3`` or ``name@latest``.
            or_latest: Whether a name without a champion means its newest version.
            deadline: ``time.monotonic()`` after which nobody waits for it; None: never.

        Raises:
            NotFound: There is no such model, version or alias.
            Invalid: The reference is of no known form.
            DeadlinePassed: The database did not answer in time.
        """
        key = (reference, or_latest)
        until, served = self._references.get(key, (0.0, None))
        if served is not None and time.monotonic() < until:
            return served
        asked_of = self._references
        found = self.sql(self._resolve, reference, or_latest)
        served = await (found if deadline is None else in_time(found, deadline))
        if self._references is not asked_of:
            return served  # something has moved since: the next one asks again
        if len(self._references) >= _CACHED_REFERENCES:
            self._references.clear()
        self._references[key] = (time.monotonic() + self._believed_s, served)
        return served

    def forget_references(self) -> None:
        """Ask the database again: an alias or a version has moved."""
        self._references = {}

    def _resolve(self, reference: str, or_latest: bool) -> Served:
        try:
            record = self.registry.resolve(reference)
        except NotFound as error:
            if not or_latest or error.kind != "alias" or "@" in reference:
                raise
            record = self.registry.resolve(f"{reference}@{LATEST}")
        return Served(
            record.model,
            record.number,
            record.digest,
            Signature.model_validate(record.signature),
            SurrogateSpec.model_validate(record.spec),
        )
