"""What a `kill -9` of a part, or of everything, leaves and what goes on by itself."""

import json
import os
import signal
import time

import psutil
import pytest

from tests.endtoend.conftest import TINY, Shell

# It must outlast what is done between two kills, some commands of the shell.
LONG = {"iterations": 4000, "polish": "none", "batch": 16, "optimiser": "adam"}
PATIENCE_S = 200


@pytest.fixture
def own(tmp_path_factory):
    """A stack of this test's own."""
    made = Shell(tmp_path_factory.mktemp("own") / "data")
    made.run("up")
    yield made
    made.run("down")


def test_a_killed_worker_and_then_a_killed_stack_lose_no_job(own, file):
    with own.client() as client:
        dataset = client.datasets.upload(file)
        job = client.train(dataset, "survivor", training=LONG, surrogate=TINY)
        _wait_for_iterations(job)
        os.kill(own.pid("worker"), signal.SIGKILL)
        _wait_until(lambda: job.refresh().record["attempt"] == 2)
        worker = next(p for p in own.status()["processes"] if p["name"] == "worker")
        assert "SIGKILL" in worker["restarts"][-1]
        assert "SIGKILL" in own.run("status").stdout

        everything = _processes(own)
        _wait_for_iterations(job)
        for process in everything | _processes(own):
            _kill(process)
        _wait_until(lambda: not any(map(psutil.pid_exists, everything)))
    assert own.run("status", code=1)
    own.run("up")
    with own.client() as client:
        # The address may be another, the data is the same, and so is the key.
        job = client.jobs.get(job.id)
        version = job.wait(PATIENCE_S)
        versions = client.models.get("survivor")["versions"]
    assert str(version) == "survivor/1"
    assert len(versions) == 1
    assert job.record["attempt"] == 3


def test_nothing_outlives_a_killed_supervisor(own):
    everything = _processes(own)
    assert len(everything) >= 4
    os.kill(_supervisor(own), signal.SIGKILL)
    _wait_until(lambda: not any(map(psutil.pid_exists, everything)), 15)


def _supervisor(own: Shell) -> int:
    return int((own.data / "supervisord.pid").read_text())


def _processes(own: Shell) -> set[int]:
    """The supervisor and everything below it."""
    supervisor = psutil.Process(_supervisor(own))
    return {supervisor.pid, *(each.pid for each in supervisor.children(recursive=True))}


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _wait_for_iterations(job) -> None:
    """Until the job has trained and a checkpoint of it is kept."""

    def has_checkpoint() -> bool:
        record = job.refresh().record
        assert record["state"] in ("queued", "running"), json.dumps(record)
        progress = record.get("progress") or {}
        return record["state"] == "running" and (progress.get("iteration") or 0) > 0

    _wait_until(has_checkpoint)


def _wait_until(is_so, seconds: float = PATIENCE_S) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.2)
