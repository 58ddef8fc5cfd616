"""GET /metrics: what this gateway counted, and what waits in the deployment."""

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from api.dependencies import GatewayDep
from services.backlog import Backlog, backlog
from services.errors import Unavailable
from services.metrics import Figures
from services.queue_names import QUEUE_OF_KIND

router = APIRouter(tags=["operations"])


class InDeployment(Collector):
    """What the database knows at the moment when it is read.

    Args:
        jobs: Those that have not ended; None where the database does not answer.
        workers: How many live, by queue.
        is_warm: Whether champions are compiled here.
        has_database: Whether the database answered, and has room.
        has_queue: Whether the broker answered when it was asked last.
    """

    def __init__(
        self,
        jobs: Iterable[Backlog] | None,
        workers: Mapping[str, int],
        *,
        is_warm: bool,
        has_database: bool,
        has_queue: bool,
    ) -> None:
        self._jobs, self._workers = jobs, workers
        self._has_database = has_database and jobs is not None
        self._is_warm, self._has_queue = is_warm, has_queue

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        said = "1 where the models that are kept ready are compiled."
        yield GaugeMetricFamily("spnode_warm", said, value=float(self._is_warm))
        said = "1 where the database answered this reading, and its disk has room."
        value = float(self._has_database)
        yield GaugeMetricFamily("spnode_database_up", said, value=value)
        said = "1 where the broker took a key when it was asked last."
        yield GaugeMetricFamily("spnode_queue_up", said, value=float(self._has_queue))
        if self._jobs is not None:
            yield from self._of_jobs(list(self._jobs))

    def _of_jobs(self, jobs: list[Backlog]) -> Iterator[Metric]:
        said, labels = "Jobs that have not ended.", ("queue", "kind", "state")
        counts = GaugeMetricFamily("spnode_jobs", said, labels=labels)
        for each in jobs:
            counts.add_metric((each.queue, each.kind, each.state), each.count)
        yield counts
        said = "How long the job has waited that may begin and has waited longest."
        labels = ("queue", "kind")
        ages = GaugeMetricFamily("spnode_job_queue_age_seconds", said, labels=labels)
        waiting = {(queue, kind): 0.0 for kind, queue in QUEUE_OF_KIND.items()}
        waiting |= {
            (each.queue, each.kind): each.oldest_s
            for each in jobs
            if each.state == "queued"
        }
        for where, age in waiting.items():
            ages.add_metric(where, age)
        yield ages
        said = "Workers that live, by what they take."
        workers = GaugeMetricFamily("spnode_workers", said, labels=["queue"])
        for queue, count in self._workers.items():
            workers.add_metric((queue,), count)
        yield workers


@router.get(
    "/metrics",
    summary="Read the metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
)
async def get_metrics(gateway: GatewayDep) -> Response:
    """In Prometheus' text format: of this process, and the jobs of the deployment.

    Needs the scope ``metrics``. Workers have a port of their own for theirs.
    """
    found = await gateway.readiness.found()
    jobs: list[Backlog] | None = None
    # Where it is away, what the process counted is worth more than ever.
    with contextlib.suppress(Unavailable):
        if found.answers("database"):
            jobs = await gateway.sql(lambda: list(backlog(gateway.database)))
    workers = dict(found.workers)
    for job in jobs or ():
        # A queue for GPUs is there where jobs wait in it.
        workers.setdefault(job.queue, 0)
    now = CollectorRegistry(auto_describe=False)
    figures = gateway.batcher.snapshot()
    now.register(Figures(lambda: figures))
    now.register(
        InDeployment(
            jobs,
            workers,
            is_warm=gateway.warmed,
            has_database=found.is_well("database"),
            has_queue=found.is_well("queue"),
        )
    )
    counted = await asyncio.to_thread(generate_latest, REGISTRY)
    return Response(counted + generate_latest(now), media_type=CONTENT_TYPE_LATEST)
