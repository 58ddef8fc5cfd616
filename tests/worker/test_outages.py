"""Database and store away for a while: what a worker computes is not lost."""

import logging
import multiprocessing
import threading
import time

import pytest

from services.claims import CancelRequested
from services.database.migrate import upgrade
from services.errors import LeaseLost
from services.jobs import Jobs
from services.settings import Settings
from tests.postgres import away
from tests.worker.test_publish import OUTCOME
from worker.context import open_context
from worker.jobs import publish, run_job
from worker.keeper import Keeper

TRAINING = {"kind": "training", "model": "m"}
SAMPLES = {"kind": "dataset", "system": "robertson", "trajectories": 2}


@pytest.fixture
def opened(tmp_path):
    """Opens the services of a worker on a database, with short leases."""
    contexts = []

    def open_on(**values):
        short = {"lease_seconds": 1.0, "heartbeat_seconds": 0.5}
        settings = Settings(
            data_folder=tmp_path / "data",
            redis_url="redis://127.0.0.1:1",
            **{**short, **values},
        )
        contexts.append(open_context(settings, ("training", "datasets")))
        upgrade(contexts[-1].database)
        return contexts[-1]

    yield open_on
    for each in contexts:
        each.queue.close()
        each.database.close()


def claimed(context, request):
    jobs = Jobs(context.database)
    job, _ = jobs.submit(request["kind"], request, owner="me")
    claim = context.leases.claim(job.queue, context.name)
    assert claim is not None
    return jobs, claim


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_job_goes_on_through_an_outage_of_the_database(opened, postgres_url):
    # Long enough for a slow machine to renew one in time.
    context = opened(database_url=postgres_url, lease_seconds=3.0)
    jobs, claim = claimed(context, TRAINING)
    context.leases.reap()
    with Keeper(context, claim) as keeper:
        with away(postgres_url):
            time.sleep(4.0)
            keeper.check()
        # At first the worker may not have renewed it; for longer than a lease, it has.
        for _ in range(14):
            assert context.leases.reap() == []
            time.sleep(0.25)
        keeper.check()
    job = jobs.get(claim.job.id)
    assert (job.state, job.attempt) == ("running", 1)


def test_a_worker_whose_job_was_taken_meanwhile_learns_it_at_once(opened, postgres_url):
    context = opened(database_url=postgres_url)
    jobs, claim = claimed(context, TRAINING)
    with Keeper(context, claim) as keeper:
        with away(postgres_url):
            time.sleep(1.5)
        context.leases.crash(claim, "as if another had taken it")
        with pytest.raises(LeaseLost):
            until(lambda: keeper.check())
    assert jobs.get(claim.job.id).state == "queued"


def test_what_is_ready_waits_for_the_store(opened):
    # A child that is silent for four leases is hung; it has to start first.
    context = opened(lease_seconds=15.0)
    jobs = Jobs(context.database)
    job, _ = jobs.submit("dataset", SAMPLES, owner="me")
    folder = context.blobs.root / "datasets"
    folder.symlink_to(folder)  # the system refuses to open it

    class Mends(logging.Handler):
        told = 0

        def emit(self, record):
            if "not kept yet" in record.getMessage():
                self.told += 1
                if self.told == 2:
                    folder.unlink()

    mends = Mends()
    log = logging.getLogger("spnode.worker")
    log.addHandler(mends)
    try:
        run_job(context, multiprocessing.get_context("spawn"), job.queue)
    finally:
        log.removeHandler(mends)
    assert mends.told == 2
    ended = jobs.get(job.id)
    assert (ended.state, ended.attempt) == ("succeeded", 1)
    assert context.datasets.get(ended.result["dataset"])


def test_who_cancels_does_not_wait_for_the_store(
    opened, postgres_url, tmp_path, monkeypatch
):
    context = opened(database_url=postgres_url)
    jobs, claim = claimed(context, TRAINING)
    (tmp_path / "artifact.spnode").write_bytes(b"an artifact")
    asked, cancelled = threading.Event(), threading.Event()
    exists = context.blobs.exists

    def slow(key):
        """The store answers when the cancellation has been accepted, or much later."""
        asked.set()
        cancelled.wait(20)
        return exists(key)

    monkeypatch.setattr(context.blobs, "exists", slow)

    def cancel():
        asked.wait(20)
        jobs.cancel(claim.job.id)
        cancelled.set()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    began = time.monotonic()
    with pytest.raises(CancelRequested):
        publish(context, claim, tmp_path, OUTCOME)
    canceller.join()
    assert time.monotonic() - began < 15
    assert context.registry.models().items == ()
