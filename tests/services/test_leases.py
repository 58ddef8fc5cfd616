from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from services.claims import CancelRequested, Claim
from services.database import tables
from services.database.engine import Database
from services.database.migrate import upgrade
from services.errors import LeaseLost
from services.jobs import Jobs
from services.leases import Leases, Note
from services.workers import Workers

REQUEST = {"kind": "dataset", "system": "robertson", "trajectories": 4}


@pytest.fixture
def jobs(any_database: Database, clock) -> Jobs:
    return Jobs(any_database, max_attempts=2, clock=clock)


@pytest.fixture
def leases(any_database: Database, clock) -> Leases:
    return Leases(any_database, lease_seconds=15, clock=clock)


@pytest.fixture
def claim(jobs: Jobs, leases: Leases) -> Claim:
    job, _ = jobs.submit("dataset", REQUEST, owner="me")
    claim = leases.claim(job.queue, "first")
    assert claim is not None
    return claim


def test_one_of_many_claimers_wins(jobs: Jobs, leases: Leases) -> None:
    job, _ = jobs.submit("dataset", REQUEST, owner="me")
    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(lambda n: leases.claim(job.queue, f"w{n}"), range(16)))
    (claim,) = [each for each in won if each is not None]
    assert jobs.get(job.id).worker == claim.job.worker


def test_a_claim_is_told_alike_on_every_database(jobs, leases, claim, clock) -> None:
    began = jobs.get(claim.job.id).started_at
    assert began is not None
    assert claim.job.started_at == began
    clock.advance(3)
    leases.crash(claim, "boom")
    again = leases.claim(claim.job.queue, "second")
    assert again is not None
    assert (again.token, again.job.attempt, again.job.worker) == (2, 2, "second")
    assert again.job.request == REQUEST
    assert jobs.get(claim.job.id).started_at == began, "when it began, not this attempt"
    events = jobs.events(claim.job.id)
    told = [(e.kind, e.level, e.message, e.data) for e in (events[1], events[-1])]
    for number, worker, each in zip((1, 2), ("first", "second"), told, strict=True):
        data = {"state": "running", "attempt": number, "worker": worker}
        assert each == ("status", "info", f"attempt {number}", data)
    assert (events[-1].created_at - events[1].created_at).total_seconds() == 3
    assert leases.claim(claim.job.queue, "third") is None
    assert len(jobs.events(claim.job.id)) == len(events)


def test_a_heartbeat_renews_and_writes(jobs: Jobs, leases, claim, clock) -> None:
    for iteration in range(4):
        clock.advance(10)
        note = Note("metrics", "", {"iteration": iteration, "loss": 0.5})
        leases.heartbeat(claim, progress={"iteration": iteration}, notes=[note])
        assert leases.reap() == []
    assert jobs.get(claim.job.id).progress == {"iteration": 3}
    history = jobs.history(claim.job.id)
    assert [point["iteration"] for point in history] == [0, 1, 2, 3]
    ids = [event.id for event in jobs.events(claim.job.id)]
    assert ids == sorted(set(ids))
    assert jobs.events(claim.job.id, after=ids[-2])[0].id == ids[-1]


def test_an_expired_lease_is_taken_back_once(jobs: Jobs, leases, claim, clock) -> None:
    clock.advance(16)
    assert leases.reap() == [claim.job.id]
    assert leases.reap() == []
    job = jobs.get(claim.job.id)
    assert (job.state, job.attempt, job.worker) == ("queued", 2, None)
    assert jobs.events(job.id)[-1].message == "worker first stopped renewing its lease"


def test_a_worker_that_vanished_amid_a_write_holds_up_no_other_job(
    postgres_url: str, clock
) -> None:
    database = Database(postgres_url)
    upgrade(database)
    jobs, leases = Jobs(database, clock=clock), Leases(database, clock=clock)
    held, other = (jobs.submit("dataset", REQUEST, owner="me")[0].id for _ in range(2))
    claim = leases.claim("datasets", "vanished")
    assert claim is not None
    assert claim.job.id == held
    leases.claim("datasets", "gone")
    clock.advance(16)
    with ThreadPoolExecutor(1) as thread, database.transaction() as connection:
        # Its commit never comes: the row stays locked.
        leases.guard(connection, claim)
        assert thread.submit(leases.reap).result(20) == [other]
        connection.rollback()
    assert leases.reap() == [held]
    database.close()


def test_a_zombie_can_write_nothing(jobs: Jobs, leases, claim, clock) -> None:
    clock.advance(16)
    leases.reap()
    again = leases.claim(claim.job.queue, "second")
    assert again is not None
    assert again.token > claim.token
    writes = [
        lambda: leases.heartbeat(claim, progress={"iteration": 99}),
        lambda: leases.fail(claim, {"code": "x", "detail": "bad"}),
        lambda: leases.cancel(claim),
        lambda: leases.release(claim, "stop"),
        lambda: leases.crash(claim, "boom"),
    ]
    before = (jobs.get(claim.job.id), jobs.events(claim.job.id))
    for write in writes:
        with pytest.raises(LeaseLost, match="with fencing token 1 was refused"):
            write()
    with leases.database.transaction() as connection, pytest.raises(LeaseLost):
        leases.guard(connection, claim)
    with leases.database.transaction() as connection, pytest.raises(LeaseLost):
        leases.succeed(connection, claim, {}, "done")
    assert (jobs.get(claim.job.id), jobs.events(claim.job.id)) == before
    with pytest.raises(LeaseLost):
        leases.is_cancel_requested(claim)
    assert not leases.is_cancel_requested(again)


def test_a_token_is_of_one_worker_where_it_was_given_twice(
    jobs: Jobs, leases, claim
) -> None:
    """As after the restore of a backup that was taken before the claim."""
    leases.release(claim, "stop")
    before = sa.update(tables.jobs).values(token=claim.token - 1)
    with jobs.database.transaction() as connection:
        connection.execute(before)
    again = leases.claim(claim.job.queue, "second")
    assert again.token == claim.token
    for write in (leases.heartbeat, leases.is_cancel_requested, leases.cancel):
        with pytest.raises(LeaseLost):
            write(claim)
    leases.heartbeat(again)
    leases.cancel(again)
    assert jobs.get(claim.job.id).state == "cancelled"


class Watch:
    """Seconds that never go back, beside a clock."""

    def __init__(self, clock) -> None:
        self.clock, self.seconds = clock, 0.0

    def __call__(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        """Let as much pass by both."""
        self.seconds += seconds
        self.clock.advance(seconds)


def test_after_a_sleep_workers_have_time_to_renew(database: Database, clock) -> None:
    watch = Watch(clock)
    jobs = Jobs(database, clock=clock)
    leases = Leases(database, clock=clock, monotonic=watch)
    dead, alive = (jobs.submit("dataset", REQUEST, owner="me")[0].id for _ in range(2))
    leases.claim("datasets", "dead")
    claim = leases.claim("datasets", "alive")
    assert claim.job.id == alive
    assert leases.reap() == []
    clock.advance(3600)
    for _ in range(3):
        assert leases.reap() == []
        watch.advance(5)
        leases.heartbeat(claim)
    assert leases.reap() == [dead]
    for _ in range(3):
        watch.advance(5)
        assert leases.reap() == []
    watch.advance(1)
    assert leases.reap() == [alive], "nobody slept"


@pytest.mark.parametrize("away", [20, 40, 3600])
def test_after_an_outage_of_the_database_workers_have_time_to_renew(
    any_database: Database, clock, away
) -> None:
    watch = Watch(clock)
    jobs = Jobs(any_database, clock=clock)
    leases = Leases(any_database, clock=clock, monotonic=watch)
    dead, alive = (jobs.submit("dataset", REQUEST, owner="me")[0].id for _ in range(2))
    leases.claim("datasets", "dead")
    claim = leases.claim("datasets", "alive")
    assert leases.reap() == []
    assert leases.reap() == [], "seen before the outage"

    def later(seconds: float) -> list[str]:
        watch.advance(seconds)
        return leases.reap()

    # Nobody was answered meanwhile.
    assert later(away) == []
    leases.heartbeat(claim)
    assert later(5) == []
    assert later(5) == []
    leases.heartbeat(claim)
    assert later(5) == [dead]
    assert jobs.get(dead).attempt == 2
    assert jobs.get(alive).worker == "alive"
    assert jobs.get(alive).attempt == 1


def test_a_job_fails_after_its_last_attempt(jobs: Jobs, leases, claim) -> None:
    leases.crash(claim, "the training process died (signal 9)")
    again = leases.claim(claim.job.queue, "second")
    assert again is not None
    leases.crash(again, "the training process died (signal 9)")
    job = jobs.get(claim.job.id)
    assert job.state == "failed"
    assert job.error == {
        "code": "attempts_exhausted",
        "detail": "the training process died (signal 9); that was attempt 2 of 2",
    }
    reasons = [event.message for event in jobs.events(job.id) if event.level != "info"]
    assert reasons == ["the training process died (signal 9)"] * 2


def test_attempts_that_get_on_do_not_count(jobs: Jobs, leases, claim) -> None:
    for number in range(1, 6):
        for checkpoint in ("a", "b"):
            leases.heartbeat(claim, checkpoint=f"{checkpoint}{number}")
        leases.crash(claim, "the worker died")
        claim = leases.claim(claim.job.queue, "next")
        assert claim is not None
        assert (claim.job.attempt, claim.job.max_attempts) == (number + 1, number + 2)
    with leases.database.transaction() as connection:
        leases.guard(connection, claim, goes_on=True)
    for ending in ("queued", "queued", "queued", "failed"):
        if ending == "queued" and claim.job.attempt == claim.job.max_attempts:
            leases.heartbeat(claim, checkpoint="at the last attempt")
        leases.crash(claim, "the worker died")
        assert jobs.get(claim.job.id).state == ending
        claim = leases.claim(claim.job.queue, "next")


def test_a_released_job_keeps_its_attempt(jobs: Jobs, leases, claim) -> None:
    for _ in range(5):
        leases.release(claim, "the worker stops")
        job = jobs.get(claim.job.id)
        assert (job.state, job.attempt) == ("queued", 1)
        claim = leases.claim(job.queue, "first")


def test_a_cancelled_job_is_not_queued_again(jobs: Jobs, leases, claim, clock) -> None:
    jobs.cancel(claim.job.id)
    clock.advance(16)
    assert leases.reap() == [claim.job.id]
    assert jobs.get(claim.job.id).state == "cancelled"


def test_a_cancelled_job_never_publishes(jobs: Jobs, leases, claim) -> None:
    jobs.cancel(claim.job.id)
    with leases.database.transaction() as connection, pytest.raises(CancelRequested):
        leases.guard(connection, claim)


def test_workers_are_living_while_they_say_so(any_database: Database, clock) -> None:
    workers = Workers(any_database, stale_seconds=15, clock=clock)
    workers.beat("a", ["training", "datasets"])
    clock.advance(10)
    workers.beat("b", ["rollouts"])
    workers.beat("a", ["training", "datasets"])
    assert {worker.id for worker in workers.living()} == {"a", "b"}
    assert [worker.id for worker in workers.living("training")] == ["a"]
    clock.advance(10)
    workers.beat("b", ["rollouts"])
    clock.advance(10)
    assert [worker.id for worker in workers.living()] == ["b"]
    workers.leave("b")
    assert workers.living() == []
