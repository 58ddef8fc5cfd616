"""Which job of a queue begins first, and which never does."""

from collections import Counter
from datetime import timedelta

import pytest

from services.claims import DeadlineExceeded
from services.database.engine import Database
from services.errors import Overloaded, TooManyRequests
from services.jobs import Jobs
from services.leases import Leases
from services.schedule import LATE
from services.unsent import Unsent


@pytest.fixture
def jobs(any_database: Database, clock) -> Jobs:
    return Jobs(any_database, clock=clock)


@pytest.fixture
def leases(any_database: Database, clock) -> Leases:
    return Leases(any_database, lease_seconds=15, clock=clock)


@pytest.fixture
def unsent(any_database: Database, clock) -> Unsent:
    return Unsent(any_database, clock=clock)


def submit(jobs: Jobs, owner: str = "me", *, kind: str = "training", **schedule):
    request = {"kind": kind, "schedule": schedule} if schedule else {"kind": kind}
    return jobs.submit(kind, request, owner=owner)[0]


def order(leases: Leases, count: int) -> list[str]:
    """The owners of jobs in the order in which workers begin them."""
    claims = [leases.claim("training", f"w{i}") for i in range(count)]
    return [claim.job.owner for claim in claims if claim is not None]


def test_the_highest_priority_begins_first(jobs, leases) -> None:
    usual = submit(jobs)
    patient = submit(jobs, priority=-3)
    urgent = submit(jobs, priority=2)
    claims = [leases.claim(patient.queue, "w") for _ in range(4)]
    began = [claim.job.id for claim in claims if claim is not None]
    assert began == [urgent.id, usual.id, patient.id]
    assert (urgent.priority, usual.priority, patient.priority) == (2, 0, -3)


def test_nobody_waits_behind_all_that_another_has_queued(jobs, leases) -> None:
    for _ in range(6):
        submit(jobs, "many")
    for _ in range(2):
        submit(jobs, "few")
    began = order(leases, 8)
    assert Counter(began[:4]) == {"many": 2, "few": 2}
    assert began[4:] == ["many"] * 4


def test_who_comes_late_is_served_in_the_turn_of_then(jobs, leases) -> None:
    """Neither after all of another's jobs, nor before all as if it had waited too."""
    for _ in range(10):
        submit(jobs, "early")
    assert order(leases, 5) == ["early"] * 5
    for _ in range(5):
        submit(jobs, "late")
    began = order(leases, 10)
    assert Counter(began[:4]) == {"early": 2, "late": 2}
    assert Counter(began) == {"early": 5, "late": 5}


def test_so_many_jobs_of_a_caller_wait_at_most(any_database, clock, leases) -> None:
    jobs = Jobs(any_database, room=(3, 100), clock=clock)
    first = [submit(jobs) for _ in range(3)]
    with pytest.raises(TooManyRequests, match="3 jobs of this key wait, of at most 3"):
        submit(jobs)
    submit(jobs, "another")
    jobs.cancel(first[2].id)
    submit(jobs)
    with pytest.raises(TooManyRequests, match="3 jobs of this key wait, of at most 3"):
        jobs.retry(first[2].id)
    # A job that runs does not wait any more.
    assert sorted(order(leases, 4)) == ["another", "me", "me", "me"]
    submit(jobs)


def test_so_many_jobs_of_all_callers_wait_at_most(any_database, clock) -> None:
    jobs = Jobs(any_database, room=(3, 3), clock=clock)
    for owner in ("one", "two", "three"):
        last = submit(jobs, owner)
    with pytest.raises(
        Overloaded, match="3 jobs wait in this deployment, of at most 3"
    ):
        submit(jobs, "four")
    jobs.cancel(last.id)
    submit(jobs, "four")
    with pytest.raises(
        Overloaded, match="3 jobs wait in this deployment, of at most 3"
    ):
        jobs.retry(last.id)


def test_a_job_runs_long_and_its_turn_is_past(jobs, leases) -> None:
    """Who comes anew does not catch up with all turns since then."""
    long = submit(jobs, "long")
    leases.claim(long.queue, "w")
    for _ in range(20):
        claim = leases.claim(submit(jobs, "steady").queue, "w")
        submit(jobs, "steady")
        leases.fail(claim, {"code": "x", "detail": "y"})
    for _ in range(8):
        submit(jobs, "new")
    began = order(leases, 8)
    assert Counter(began)["steady"] >= 3


def test_a_job_for_a_gpu_waits_for_a_worker_that_has_one(jobs, leases) -> None:
    anywhere = submit(jobs)
    there = submit(jobs, device="gpu")
    assert (anywhere.queue, there.queue) == ("training", "training.gpu")
    assert leases.claim(anywhere.queue, "w").job.id == anywhere.id
    assert leases.claim(anywhere.queue, "w") is None
    assert leases.claim(there.queue, "w").job.id == there.id


def test_a_job_fails_that_waits_until_its_deadline(jobs, leases, unsent, clock) -> None:
    job = submit(jobs, deadline_seconds=60)
    assert job.deadline == job.created_at + timedelta(seconds=60)
    clock.advance(59)
    assert unsent.fail_late() == []
    clock.advance(1)
    assert leases.claim(job.queue, "w") is None
    assert unsent.take("training", waiting=0, older_than_s=0) == []
    assert unsent.fail_late() == [job.id]
    assert unsent.fail_late() == []
    late = jobs.get(job.id)
    assert (late.state, late.error) == ("failed", LATE)
    assert jobs.events(job.id)[-1].data == {"state": "failed", "error": LATE}


def test_a_job_that_was_retried_meanwhile_is_not_failed_again(
    jobs, unsent, clock
) -> None:
    job = submit(jobs, deadline_seconds=60)
    clock.advance(60)
    assert unsent.fail_late() == [job.id]
    jobs.retry(job.id)
    assert unsent._fail(job.id) is False, "as by a worker that saw it late before"
    assert jobs.get(job.id).state == "queued"


def test_nothing_is_published_after_a_deadline(jobs, leases, clock) -> None:
    claim = leases.claim(submit(jobs, deadline_seconds=60).queue, "w")
    with leases.database.transaction() as connection:
        leases.guard(connection, claim)
    clock.advance(61)
    with (
        pytest.raises(DeadlineExceeded),
        leases.database.transaction() as connection,
    ):
        leases.guard(connection, claim)


def test_a_retry_has_the_time_and_the_attempts_of_a_new_job(
    jobs, leases, unsent, clock
) -> None:
    claim = leases.claim(submit(jobs, deadline_seconds=60).queue, "w")
    leases.heartbeat(claim, checkpoint="c" * 64)
    assert jobs.get(claim.job.id).max_attempts == 4
    leases.fail(claim, LATE)
    clock.advance(1000)
    again = jobs.retry(claim.job.id)
    assert again.deadline == again.created_at + timedelta(seconds=1060)
    assert again.max_attempts == 3
    assert unsent.fail_late() == []
    assert leases.claim(again.queue, "w") is not None
