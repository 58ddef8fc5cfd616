"""Word of jobs where the broker takes connections and never answers."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from services.jobs import Jobs
from services.leases import Leases
from services.queue import Queue
from services.settings import Settings
from services.unsent import Unsent
from tests.services.test_jobs import REQUEST


@pytest.fixture
def hanging(tmp_path):
    """A queue whose broker hangs."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        queue = Queue(Settings(data_folder=tmp_path, redis_url=url))
        yield queue
        queue.close()


def test_a_broker_that_hangs_loses_no_job_and_holds_nobody_for_long(
    hanging, any_database, guarded_valkey
) -> None:
    jobs = Jobs(any_database, hanging)

    def submit(_) -> str:
        return jobs.submit("dataset", REQUEST, owner="me")[0].id

    started = time.monotonic()
    with ThreadPoolExecutor(4) as threads:
        ids = set(threads.map(submit, range(20)))
    # One try of two seconds in five; 20 of them would take ten seconds and more.
    assert time.monotonic() - started < 9
    queued = jobs.list(state="queued", limit=100).items
    assert {job.id for job in queued} == ids

    leases = Leases(any_database, hanging)
    claim = leases.claim("datasets", "worker")
    assert claim is not None
    started = time.monotonic()
    leases.release(claim, "the worker stopped")
    assert time.monotonic() - started < 3
    assert jobs.get(claim.job.id).state == "queued"

    # What the housekeeping of a worker does whose broker answers.
    back = Queue(guarded_valkey)
    unsent = Unsent(any_database)
    found = unsent.take("datasets", waiting=back.waiting("datasets"), older_than_s=0)
    assert set(found) == ids
    assert all(back.send_job("datasets", id) for id in found)
    assert back.waiting("datasets") == len(ids)
    back.close()
