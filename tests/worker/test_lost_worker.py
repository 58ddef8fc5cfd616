"""What happens to a job when its worker, its child or the broker fails."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import time
from contextlib import closing

import psutil
import pytest

from services.queue import redis_client

LONG = 10_000_000


def optimising(job) -> bool:
    return (job.progress or {}).get("stage") == "optimise" and job.state == "running"


def iteration(job) -> int:
    return (job.progress or {}).get("iteration", 0)


def children_of(worker: subprocess.Popen) -> list[psutil.Process]:
    """The training processes of a worker: children of its fork server."""
    found = []
    for each in psutil.Process(worker.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if each.cmdline() and each.ppid() != worker.pid:
                found.append(each)
    return found


def first_iteration(stack, id: str, *, attempt: int) -> int:
    """The iteration of the first metrics that an attempt wrote."""
    events = iter(stack.jobs.events(id))
    next(e for e in events if e.kind == "status" and e.message == f"attempt {attempt}")
    return next(e.data["iteration"] for e in events if e.kind == "metrics")


def kept(stack, id: str) -> int:
    """The iteration that the last checkpoint which was kept is at, or an earlier one.

    It was written after the one before was kept, and so after what was told till then.
    """
    told, before = 0, [0, 0]
    for event in stack.jobs.events(id):
        if event.kind == "metrics":
            told = event.data["iteration"]
        elif event.kind == "checkpoint":
            before = [before[1], told]
    return before[0]


def kept_far(stack, id: str) -> None:
    """Wait until a first attempt has kept far more than one begun anew first reports."""

    def is_far(now) -> bool:
        reached = kept(stack, id)
        return bool(reached) and reached > 2 * first_iteration(stack, id, attempt=1)

    stack.wait(id, is_far, 240)


def test_a_killed_worker_loses_no_job_and_publishes_one_version(stack) -> None:
    first = stack.start_worker()
    job = stack.train(iterations=20_000)
    kept_far(stack, job.id)
    orphans = children_of(first)
    first.kill()
    first.wait()
    gone, alive = psutil.wait_procs(orphans, 5)
    assert not alive, "a child ends with its parent"
    assert gone

    reached = kept(stack, job.id)
    stack.start_worker()
    ended = stack.end(job.id, 240)
    assert (ended.state, ended.attempt) == ("succeeded", 2), ended.error
    versions = stack.registry.versions("tiny").items
    assert [version.number for version in versions] == [1]
    resumed = first_iteration(stack, job.id, attempt=2)
    assert resumed >= reached


def test_a_stopped_worker_hands_its_job_over_with_a_checkpoint(stack) -> None:
    first = stack.start_worker()
    job = stack.train(iterations=8_000)
    stack.wait(job.id, lambda now: optimising(now) and iteration(now) > 0)
    first.terminate()
    waiting = stack.wait(job.id, lambda now: now.state == "queued", 120)
    assert waiting.attempt == 1
    assert first.wait(20) == 0
    events = stack.jobs.events(job.id)
    assert "checkpoint" in [event.kind for event in events[-3:]]
    assert events[-1].data["reason"] == "the worker stopped; the job is queued again"
    reached = iteration(waiting)

    stack.start_worker()
    ended = stack.end(job.id, 240)
    assert (ended.state, ended.attempt) == ("succeeded", 1), ended.error
    assert [v.number for v in stack.registry.versions("tiny").items] == [1]
    iterations = [point["iteration"] for point in stack.jobs.history(job.id)]
    assert iterations == sorted(iterations), "it went on where it was"
    assert iterations[-1] > reached


def _freeze(family, database) -> None:
    """Suspend processes while none of them writes: SQLite has one writer at a time."""
    for _ in range(20):
        for process in family:
            process.suspend()
        try:
            with closing(sqlite3.connect(database.url.database, timeout=0.2)) as look:
                look.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError:
            for process in reversed(family):
                process.resume()
            time.sleep(0.1)
    pytest.fail("they always write")


def test_a_zombie_that_wakes_after_its_lease_writes_nothing(stack) -> None:
    zombie = stack.start_worker()
    job = stack.train(iterations=3_000)
    held = stack.wait(job.id, optimising)
    family = [psutil.Process(zombie.pid), *children_of(zombie)]
    _freeze(family, stack.database)
    try:
        other = stack.start_worker()
        taken = stack.wait(
            job.id, lambda now: now.worker not in (None, held.worker), 60
        )
    finally:
        for process in reversed(family):
            process.resume()
    assert taken.attempt == 2
    _, alive = psutil.wait_procs(family[1:], 60)
    assert not alive, "the zombie kills its child when it finds its lease lost"
    ended = stack.end(job.id, 240)
    assert ended.state == "succeeded", ended.error
    assert [v.number for v in stack.registry.versions("tiny").items] == [1]
    workers = {
        event.data["worker"]
        for event in stack.jobs.events(job.id)
        if event.data and "worker" in event.data
    }
    assert len(workers) == 2
    assert zombie.poll() is None
    assert other.poll() is None


def test_a_crashing_child_is_started_again_and_then_given_up(stack) -> None:
    worker = stack.start_worker()
    job = stack.train(iterations=LONG)
    # Those that kept a checkpoint do not count, so there may be more than two.
    while not stack.jobs.get(job.id).is_terminal:
        for child in children_of(worker):
            os.kill(child.pid, signal.SIGKILL)
        time.sleep(0.1)
    ended = stack.end(job.id, 250)
    assert ended.state == "failed"
    assert ended.error["code"] == "attempts_exhausted"
    assert "the job's process died (signal 9)" in ended.error["detail"]
    reasons = [e.message for e in stack.jobs.events(job.id) if e.level != "info"]
    assert len(reasons) == ended.attempt >= 2


def test_a_frozen_child_is_noticed_and_its_job_goes_on(stack) -> None:
    worker = stack.start_worker()
    job = stack.train(iterations=LONG)
    stack.wait(job.id, lambda job: job.state == "running" and job.progress)
    (child,) = children_of(worker)
    os.kill(child.pid, signal.SIGSTOP)
    # It holds its lease all the while: nobody else could help.
    stack.wait(job.id, lambda job: job.attempt == 2 and job.state == "running", 90)
    assert not child.is_running()
    (reason,) = [e.message for e in stack.jobs.events(job.id) if e.level != "info"]
    assert "gave no sign of life" in reason
    stack.jobs.cancel(job.id)


def test_a_job_whose_message_was_lost_is_sent_again(stack) -> None:
    request = {"kind": "dataset", "system": "robertson", "trajectories": 2}
    early, _ = stack.jobs.submit("dataset", request, owner="me")
    with redis_client(stack.settings) as client:
        client.flushall()
    stack.start_worker()
    assert stack.end(early.id, 60).state == "succeeded"
    late, _ = stack.jobs.submit("dataset", request, owner="me")
    with redis_client(stack.settings) as client:
        client.flushall()
    assert stack.end(late.id, 60).state == "succeeded"
