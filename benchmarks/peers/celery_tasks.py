"""A Celery application whose tasks say when they began; its URLs are variables."""

import os
import time

import celery

APPLICATION = "benchmarks.peers.celery_tasks"
BROKER, BACKEND = "BENCH_BROKER", "BENCH_BACKEND"

app = celery.Celery(
    "bench", broker=os.environ.get(BROKER), backend=os.environ.get(BACKEND)
)
# A task that has begun says so in the backend, as a claim does in our row.
app.conf.task_track_started = True
app.conf.worker_send_task_events = False
app.conf.broker_connection_retry_on_startup = True


@app.task(name="bench.begin")
def begin() -> float:
    """The moment it began."""
    return time.time()
