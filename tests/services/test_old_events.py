"""Losses and log lines of jobs that ended long ago are deleted; their story stays."""

import pytest

from services.jobs import Jobs
from services.leases import Leases, Note
from services.old_events import OldEvents

DAY = 24 * 3600


@pytest.fixture
def jobs(any_database, clock) -> Jobs:
    return Jobs(any_database, clock=clock)


def run(jobs, leases, *, ends: bool):
    """A job that tells a loss and a log line, with its id."""
    jobs.submit("dataset", {}, owner="me")
    claim = leases.claim("datasets", "w")
    notes = [Note("metrics", "", {"loss": 1.0}), Note("log", "begins")]
    leases.heartbeat(claim, notes=notes)
    if ends:
        leases.fail(claim, {"code": "x", "detail": "no use"})
    return claim.job.id


def kinds(jobs, id: str) -> list[str]:
    return [event.kind for event in jobs.events(id)]


def test_what_a_job_told_goes_long_after_its_end(jobs, any_database, clock) -> None:
    leases = Leases(any_database, lease_seconds=100 * DAY, clock=clock)
    old = OldEvents(any_database, kept_s=30 * DAY, clock=clock)
    ended = [run(jobs, leases, ends=True) for _ in range(3)]
    clock.advance(20 * DAY)
    young = run(jobs, leases, ends=True)
    running = run(jobs, leases, ends=False)
    assert old.sweep() == 0
    clock.advance(11 * DAY)
    assert old.sweep() == 6
    assert old.sweep() == 0
    whole = ["status", "status", "metrics", "log"]
    assert [kinds(jobs, id) for id in ended] == [["status"] * 3] * 3
    assert kinds(jobs, young) == [*whole, "status"]
    assert kinds(jobs, running) == whole
    assert jobs.events(ended[0])[-1].message == "no use"
    # A stream that goes on after what is gone begins with what is left.
    last = jobs.events(ended[0])[-1].id
    assert [event.id for event in jobs.events(ended[0], after=last - 1)] == [last]


def test_many_are_deleted_some_jobs_at_a_time(
    jobs, any_database, clock, monkeypatch
) -> None:
    monkeypatch.setattr("services.old_events._JOBS_AT_ONCE", 2)
    leases = Leases(any_database, clock=clock)
    for _ in range(5):
        run(jobs, leases, ends=True)
    clock.advance(2 * DAY)
    assert OldEvents(any_database, kept_s=DAY, clock=clock).sweep() == 10
