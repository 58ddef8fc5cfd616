"""The worker that serves rollout batches: a process without a fork server."""

import time

import psutil

from services.workers import Workers


def test_a_rollout_worker_takes_rollouts_alone_and_stops_when_told(stack) -> None:
    worker = stack.start_worker("--rollouts")
    workers = Workers(stack.database)
    end = time.monotonic() + 60
    while not workers.living("rollouts") and time.monotonic() < end:
        time.sleep(0.1)
    (living,) = workers.living()
    assert living.queues == ("rollouts",)
    assert psutil.Process(worker.pid).children() == []
    time.sleep(0.5)
    worker.terminate()
    assert worker.wait(20) == 0
    assert workers.living() == []
