import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from services.database.engine import Database
from services.database.migrate import upgrade
from services.datasets import Datasets
from services.errors import Conflict, Invalid, NotFound
from services.jobs import Jobs
from services.leases import Leases
from services.lifecycle import TERMINAL, TRANSITIONS, move
from services.unsent import Unsent


class Sent:
    """A broker that notes what it takes, or is down."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.is_down = False

    def send_job(self, queue: str, id: str) -> bool:
        if not self.is_down:
            self.ids.append(id)
        return not self.is_down


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
def jobs(any_database: Database, sent: Sent, clock) -> Jobs:
    return Jobs(any_database, sent, clock=clock)


@pytest.fixture
def leases(any_database: Database, sent: Sent, clock) -> Leases:
    return Leases(any_database, sent, lease_seconds=15, clock=clock)


@pytest.fixture
def unsent(any_database: Database, clock) -> Unsent:
    return Unsent(any_database, clock=clock)


REQUEST = {"kind": "dataset", "system": "robertson", "trajectories": 4}


def submit(jobs: Jobs, **options):
    return jobs.submit("dataset", REQUEST, owner="me", **options)[0]


def test_a_submitted_job_is_queued_and_sent(jobs: Jobs, sent: Sent) -> None:
    job = submit(jobs)
    assert job.state == "queued"
    assert sent.ids == [job.id]
    assert jobs.get(job.id) == job
    assert [event.data for event in jobs.events(job.id)] == [{"state": "queued"}]


def test_a_job_is_accepted_while_the_broker_is_down(
    jobs: Jobs, unsent: Unsent, sent: Sent, clock
) -> None:
    sent.is_down = True
    job = submit(jobs)
    assert jobs.get(job.id).state == "queued"
    assert unsent.queues() == ["datasets"]
    assert unsent.take("datasets", waiting=0, older_than_s=30) == []
    clock.advance(31)
    assert unsent.take("training", waiting=0, older_than_s=30) == []
    assert unsent.take("datasets", waiting=0, older_than_s=30) == [job.id]
    assert unsent.take("datasets", waiting=0, older_than_s=30) == []


def test_as_many_are_sent_again_as_lack_a_message(
    jobs: Jobs, leases: Leases, unsent: Unsent, clock
) -> None:
    def lacking(waiting: int) -> list[str]:
        return unsent.take("datasets", waiting=waiting, older_than_s=30)

    old = [submit(jobs) for _ in range(3)]
    clock.advance(31)
    young = submit(jobs)
    assert lacking(4) == lacking(9) == []
    found = lacking(3)
    assert len(found) == 1, "whose message it was does not matter"
    found += lacking(0)
    assert sorted(found) == sorted(job.id for job in old), "all but the young one"
    clock.advance(31)
    leases.claim(young.queue, "worker")
    assert len(lacking(1)) == 2, "one of the four runs"


def test_a_round_sends_the_first_of_many_again(
    jobs: Jobs, unsent: Unsent, clock, monkeypatch
) -> None:
    monkeypatch.setattr("services.unsent.MOST_AT_ONCE", 2)
    ids = []
    for _ in range(5):
        ids.append(submit(jobs).id)
        clock.advance(1)
    clock.advance(31)
    rounds = [unsent.take("datasets", waiting=0, older_than_s=30) for _ in range(4)]
    assert [sorted(each) for each in rounds] == [ids[:2], ids[2:4], ids[4:], []]


def test_what_sends_may_fail_as_it_likes(
    any_database: Database, unsent: Unsent, clock, caplog
) -> None:
    class Broken:
        def send_job(self, queue: str, id: str) -> bool:
            raise RuntimeError("no such encoding")

    jobs = Jobs(any_database, Broken(), clock=clock)
    job = submit(jobs)
    assert jobs.get(job.id).state == "queued"
    assert f"job {job.id}: word of it was not sent" in caplog.text
    assert "no such encoding" in caplog.text
    clock.advance(31)
    assert unsent.take("datasets", waiting=0, older_than_s=30) == [job.id]
    jobs.cancel(job.id)
    assert jobs.retry(job.id).state == "queued"


def test_a_caller_that_was_cut_off_amid_a_write_holds_up_no_other_job(
    postgres_url: str, clock
) -> None:
    database = Database(postgres_url)
    upgrade(database)
    jobs, unsent = Jobs(database, clock=clock), Unsent(database, clock=clock)
    request = {**REQUEST, "schedule": {"deadline_seconds": 60}}
    held, other = (jobs.submit("dataset", request, owner="me")[0].id for _ in range(2))
    clock.advance(31)

    def taken() -> list[str]:
        return unsent.take("datasets", waiting=0, older_than_s=30)

    lock = sa.text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE")
    with ThreadPoolExecutor(1) as thread, database.transaction() as connection:
        connection.execute(lock, {"id": held})
        assert thread.submit(taken).result(15) == [other]
        clock.advance(31)
        assert thread.submit(unsent.fail_late).result(15) == [other]
    assert unsent.fail_late() == [held]
    database.close()


def test_an_idempotency_key_makes_one_job(jobs: Jobs, sent: Sent) -> None:
    first, replayed = jobs.submit("dataset", REQUEST, owner="me", idempotency_key="k")
    again, replayed_again = jobs.submit(
        "dataset", REQUEST, owner="me", idempotency_key="k"
    )
    other, _ = jobs.submit("dataset", REQUEST, owner="you", idempotency_key="k")
    assert (replayed, replayed_again) == (False, True)
    assert again.id == first.id != other.id
    assert sent.ids == [first.id, other.id]


def test_an_idempotency_key_for_another_request_is_refused(jobs: Jobs) -> None:
    submit(jobs, idempotency_key="k")
    with pytest.raises(Invalid, match="Idempotency-Key") as refused:
        jobs.submit("dataset", {**REQUEST, "seed": 1}, owner="me", idempotency_key="k")
    assert refused.value.code == "idempotency_key_reused"


def test_an_idempotency_key_is_forgotten_after_a_day(jobs: Jobs, clock) -> None:
    first = submit(jobs, idempotency_key="k")
    clock.advance(25 * 3600)
    assert submit(jobs, idempotency_key="k").id != first.id


def test_concurrent_submissions_with_one_key_make_one_job(jobs: Jobs) -> None:
    with ThreadPoolExecutor(8) as threads:
        made = [threads.submit(submit, jobs, idempotency_key="k") for _ in range(16)]
    assert len({each.result().id for each in made}) == 1


def test_a_job_on_a_missing_dataset_is_refused(jobs: Jobs) -> None:
    request = {"kind": "training", "dataset": "ds_none", "model": "m"}
    with pytest.raises(Invalid, match="/dataset") as refused:
        jobs.submit("training", request, owner="me")
    assert refused.value.code == "dataset_not_found"
    assert jobs.list().items == ()


def test_a_missing_job_is_not_found(jobs: Jobs) -> None:
    for ask in (jobs.get, jobs.cancel, jobs.retry, jobs.events, jobs.history):
        with pytest.raises(NotFound, match="no job 'job_none'"):
            ask("job_none")


def test_pages_hold_every_job_once_newest_first(jobs: Jobs, clock) -> None:
    made = []
    for number in range(7):
        made.append(submit(jobs).id)
        clock.advance(number % 2)  # some share an instant
    found, after = [], None
    while True:
        page = jobs.list(limit=3, after=after)
        found += [job.id for job in page.items]
        submit(jobs)  # newer ones do not disturb the pages behind the cursor
        after = page.next
        if after is None:
            break
    assert sorted(found) == sorted(made)
    first = jobs.list(limit=100).items
    ordered = sorted(first, key=lambda job: (job.created_at, job.id), reverse=True)
    assert list(first) == ordered


def test_jobs_are_listed_by_state_and_kind(jobs: Jobs, leases: Leases) -> None:
    running, waiting = submit(jobs), submit(jobs)
    leases.claim(waiting.queue, "w")
    assert [job.id for job in jobs.list(state="running").items] == [running.id]
    assert [job.id for job in jobs.list(state="queued").items] == [waiting.id]
    assert jobs.list(kind="training").items == ()


def test_a_queued_job_is_cancelled_at_once(jobs: Jobs, leases: Leases) -> None:
    job = jobs.cancel(submit(jobs).id)
    assert job.state == "cancelled"
    assert job.finished_at is not None
    assert leases.claim(job.queue, "w") is None
    assert jobs.cancel(job.id).state == "cancelled"


def test_a_running_job_is_asked_to_stop(jobs: Jobs, leases: Leases) -> None:
    claim = leases.claim(submit(jobs).queue, "w")
    assert claim is not None
    job = jobs.cancel(claim.job.id)
    assert (job.state, job.cancel_requested) == ("running", True)
    assert leases.heartbeat(claim) is True
    leases.cancel(claim)
    assert jobs.get(job.id).state == "cancelled"


def test_a_job_is_cancelled_while_its_worker_gives_it_back(
    jobs: Jobs, leases: Leases
) -> None:
    claim = leases.claim(submit(jobs).queue, "w")
    assert claim is not None
    with ThreadPoolExecutor(1) as pool:
        with jobs.database.transaction() as connection:
            leases._requeue(connection, claim.job, claim.token, "stops", counts=False)
            cancelled = pool.submit(jobs.cancel, claim.job.id)
            time.sleep(0.5)
        assert cancelled.result(30).state == "cancelled"
    assert jobs.get(claim.job.id).state == "cancelled"


def test_an_ended_job_cannot_be_cancelled(jobs: Jobs, leases: Leases) -> None:
    claim = leases.claim(submit(jobs).queue, "w")
    assert claim is not None
    leases.fail(claim, {"code": "x", "detail": "bad"})
    with pytest.raises(Conflict, match="has failed and cannot be cancelled"):
        jobs.cancel(claim.job.id)


def test_a_failed_job_is_retried_with_all_its_attempts(
    jobs: Jobs, leases: Leases, sent: Sent
) -> None:
    claim = leases.claim(submit(jobs).queue, "w")
    assert claim is not None
    leases.heartbeat(claim, checkpoint="c" * 64)
    leases.fail(claim, {"code": "x", "detail": "bad"})
    job = jobs.retry(claim.job.id)
    assert (job.state, job.attempt, job.error) == ("queued", 1, None)
    assert job.started_at is None, "how long it takes begins anew"
    assert sent.ids[-1] == job.id
    again = leases.claim(job.queue, "w")
    assert again is not None
    assert again.token == claim.token + 1
    assert again.checkpoint is None


def test_a_cancelled_job_goes_on_from_its_checkpoint(
    jobs: Jobs, leases: Leases
) -> None:
    claim = leases.claim(submit(jobs).queue, "w")
    assert claim is not None
    leases.heartbeat(claim, checkpoint="c" * 64)
    jobs.cancel(claim.job.id)
    leases.cancel(claim)
    again = leases.claim(jobs.retry(claim.job.id).queue, "w")
    assert again is not None
    assert again.checkpoint == "c" * 64
    assert again.job.cancel_requested is False


def test_a_job_that_has_not_ended_cannot_be_retried(jobs: Jobs) -> None:
    with pytest.raises(Conflict, match="is queued; only a failed or cancelled"):
        jobs.retry(submit(jobs).id)


def test_no_state_follows_another_unless_it_is_written_down(jobs: Jobs, clock) -> None:
    assert all(TRANSITIONS[state] <= {"queued"} for state in TERMINAL)
    with (
        jobs.database.transaction() as connection,
        pytest.raises(ValueError, match="succeeded never becomes running"),
    ):
        move(connection, "j", before="succeeded", after="running", now=None)


def test_of_a_retry_and_the_deletion_of_its_dataset_one_is_refused(
    jobs: Jobs, any_database, blobs, settings, clock, small_file
) -> None:
    datasets = Datasets(any_database, blobs, settings, clock=clock)
    first = datasets.add(small_file, owner="me")
    given = {"digest": first.digest, "size_bytes": first.size_bytes, "owner": "me"}

    def race() -> None:
        with any_database.transaction() as connection:
            dataset = datasets.register(connection, summary=first.summary, **given)
        request = {"kind": "training", "dataset": dataset.id, "model": "m"}
        job, _ = jobs.submit("training", request, owner="me")
        jobs.cancel(job.id)
        with ThreadPoolExecutor(2) as pool:
            calls = (
                pool.submit(jobs.retry, job.id),
                pool.submit(datasets.delete, dataset.id),
            )
        refused = [isinstance(each.exception(), Conflict) for each in calls]
        assert sorted(refused) == [False, True], [each.exception() for each in calls]

    for _ in range(20):
        race()


def test_a_dataset_in_use_is_not_deleted(
    jobs: Jobs, leases: Leases, any_database, blobs, settings, clock, small_file
) -> None:
    datasets = Datasets(any_database, blobs, settings, clock=clock)
    dataset = datasets.add(small_file, owner="me")
    request = {"kind": "training", "dataset": dataset.id, "model": "m"}
    job, _ = jobs.submit("training", request, owner="me")
    with pytest.raises(Conflict, match=f"job '{job.id}' uses dataset"):
        datasets.delete(dataset.id)
    jobs.cancel(job.id)
    datasets.delete(dataset.id)
    assert jobs.get(job.id).request["dataset"] == dataset.id
    with pytest.raises(Conflict, match="has been deleted"):
        jobs.retry(job.id)
