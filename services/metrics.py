"""What this process counts for whoever is on call, as Prometheus metrics.

Names begin with ``spnode_``, times are in seconds, sizes in bytes. Labels are few and
of few values: never a model, a key or an id. What the database knows of jobs is asked
when somebody reads: ``services.backlog``.
"""

import functools
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_FAST = (
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
    60.0,
)
_LONG = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 24 * 3600.0)

REQUESTS = Histogram(
    "spnode_request_seconds",
    "HTTP requests, from coming to the first byte of the answer; 499: to where the "
    "caller had gone, who got none.",
    ("method", "route", "status"),
    buckets=_FAST,
)
PROBLEMS = Counter(
    "spnode_problems", "Refused requests by the code of the problem.", ("code",)
)
BATCH_ROWS = Histogram(
    "spnode_batch_rows",
    "Rows of a batch of rollouts.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
)
BATCH_WAIT = Histogram(
    "spnode_batch_wait_seconds",
    "How long a request waited for its first batch.",
    buckets=_FAST,
)
BATCH_SECONDS = Histogram(
    "spnode_batch_seconds",
    "How long a batch took in the executor, loading and compiling included.",
    ("operation",),
    buckets=_FAST,
)
BUSY = Gauge(
    "spnode_compute_busy_seconds",
    "For how long the longest computation, load or compilation of now has run.",
)
COMPUTE_SECONDS = Histogram(
    "spnode_compute_seconds",
    "How long a batch was computed, where that was done.",
    ("operation",),
    buckets=_FAST,
)
# Every batch asks for one of a few, which ``labels`` takes a lock to find.
batch_seconds = functools.cache(BATCH_SECONDS.labels)
"""The histogram of an operation."""
compute_seconds = functools.cache(COMPUTE_SECONDS.labels)
"""Likewise."""
JOB_SECONDS = Histogram(
    "spnode_job_seconds",
    "Jobs that ended in this worker, from their submission.",
    ("kind", "ending"),
    buckets=_LONG,
)
ATTEMPTS = Histogram(
    "spnode_job_attempt_seconds",
    "Attempts at jobs in this worker, by how they ended.",
    ("kind", "ending"),
    buckets=_LONG,
)
JOB_DEVICE_BYTES = Gauge(
    "spnode_job_device_bytes",
    "Memory in use on the devices of the job that runs here; CPUs do not tell.",
)
LEASES_LOST = Counter(
    "spnode_leases_lost", "Attempts that this worker gave up since another had the job."
)
LEASES_EXPIRED = Counter(
    "spnode_leases_expired", "Jobs that were taken back from workers that fell silent."
)
MESSAGES_RESENT = Counter(
    "spnode_messages_resent", "Jobs of which word was sent again, since none had it."
)

_GAUGES = {
    "queued_rows": "Rows that wait for the executor.",
    "queued_bytes": "Bytes of their inputs and expected answers.",
    "running_batches": "Batches in the executor.",
    "preparing_batches": "Batches that wait for loading or compiling.",
    "models_resident": "Versions that are loaded.",
    "resident_bytes": "Memory of loaded and compiled versions.",
    "resident_programs": "Compiled programs.",
    "memory_mappings": "Of the process, when it compiled last; Linux limits them.",
    "device_bytes": "Memory in use on the devices that tell; CPUs do not.",
}
_COUNTERS = {
    "requests": "Requests for rows that were admitted.",
    "refused": "Requests that were told to come later.",
    "expired": "Requests whose deadline passed before they began.",
    "cancelled": "Requests that their callers gave up.",
    "compilations": "Programs that were compiled.",
    "compilations_on_request": "Of these, while a request waited.",
    "models_loaded": "Versions that were loaded.",
    "models_evicted": "Versions that left for others.",
    "resent": "Batches that were sent to the workers again.",
}
FIGURES = (*_GAUGES, *_COUNTERS)
"""Names of figures that are metrics."""


class Figures(Collector):
    """What executors and engines count by themselves, under names of metrics.

    Args:
        read: Gives the figures by name; what has no name here is left out.
    """

    def __init__(self, read: Callable[[], Mapping[str, float]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        figures = self._read()
        for kind, known in (
            (GaugeMetricFamily, _GAUGES),
            (CounterMetricFamily, _COUNTERS),
        ):
            for name, said in known.items():
                if name in figures:
                    yield kind(f"spnode_rollout_{name}", said, value=figures[name])
