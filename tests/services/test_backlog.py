"""How long the job waits that has waited longest: what workers are scaled by."""

import pytest

from services.backlog import backlog
from services.jobs import Jobs
from services.leases import Leases
from tests.services.test_sweeps import Queue


@pytest.fixture
def queue(any_database, blobs, settings, clock, tmp_path) -> Queue:
    return Queue(any_database, blobs, settings, clock, tmp_path)


@pytest.fixture
def waiting(any_database, clock):
    """Seconds by kind, of what is queued."""
    return lambda state="queued": {
        each.kind: (each.count, pytest.approx(each.oldest_s, abs=1e-3))
        for each in backlog(any_database, clock=clock)
        if each.state == state
    }


@pytest.fixture
def jobs(any_database, clock) -> Jobs:
    return Jobs(any_database, clock=clock)


@pytest.fixture
def leases(any_database, clock) -> Leases:
    return Leases(any_database, rest_seconds=30, clock=clock)


def claimed(jobs, leases):
    id = jobs.submit("dataset", {}, owner="me")[0].id
    claim = leases.claim("datasets", "w")
    assert claim.job.id == id
    return claim


def test_the_oldest_counts_by_kind_and_what_runs_apart(jobs, leases, clock, waiting):
    for _ in range(3):
        jobs.submit("dataset", {}, owner="me")
        clock.advance(10)
    assert waiting() == {"dataset": (3, 30)}
    leases.claim("datasets", "w")
    clock.advance(5)
    assert waiting() == {"dataset": (2, 25)}
    assert waiting("running") == {"dataset": (1, 5)}


def test_a_job_waits_from_when_it_was_queued_last(jobs, leases, clock, waiting) -> None:
    claim = claimed(jobs, leases)
    clock.advance(500)
    leases.release(claim, "the worker stops")
    clock.advance(2)
    assert waiting() == {"dataset": (1, 2)}
    claim = leases.claim("datasets", "w")
    leases.fail(claim, {"code": "x", "detail": "y"})
    clock.advance(100)
    jobs.retry(claim.job.id)
    clock.advance(3)
    assert waiting() == {"dataset": (1, 3)}


def test_a_job_that_rests_waits_for_no_worker_until_it_has(
    jobs, leases, clock, waiting
) -> None:
    leases.put_off(claimed(jobs, leases), "the store does not answer")
    clock.advance(20)
    assert waiting() == {"dataset": (1, 0)}
    clock.advance(14)
    assert waiting() == {"dataset": (1, 4)}


def test_a_sweep_waits_from_when_its_last_candidate_ended(
    queue, clock, waiting
) -> None:
    sweep = queue.submit()
    clock.advance(60)
    assert waiting() == {"sweep": (1, 0), "training": (2, 60)}
    for id in queue.candidates_of(sweep):
        queue.fail(id)
    queue.candidates.note_all()
    assert queue.unsent.take_ready() == [(sweep.queue, sweep.id)]
    clock.advance(7)
    assert waiting() == {"sweep": (1, 7)}
