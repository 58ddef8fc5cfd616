"""Sweeps before they are queued, while they wait, cancelled and retried."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from services.database.candidate_rows import lock_waiting
from services.database.engine import Database
from services.database.migrate import upgrade
from services.datasets import Datasets
from services.errors import Conflict, Invalid
from services.jobs import Jobs
from services.leases import Leases
from services.registry import Registry
from services.sweeps.candidates import Candidates
from services.sweeps.request import PlannedSweep, SweepJob, merged
from services.sweeps.submit import Sweeps
from services.unsent import Unsent
from tests.api.deployment import publish
from tests.core.models import small_surrogate
from tests.services.test_jobs import Sent
from tests.services.test_warm_start import LINEAR, added

NINE = {"surrogate": {"latent": 9, "autoencoder": {"kind": "none"}}}
REFUSED = [
    ({"grid": {"seed": [0]}}, "/grid"),
    ({"grid": {"seed": list(range(8)), "members": list(range(1, 6))}}, "/grid"),
    ({"grid": {"split.test": [0.1, 0.2]}}, "/grid/split.test"),
    ({"grid": {"seed": [0, -1]}}, "/grid/seed/1"),
    ({"grid": {"seed": [0, 0]}}, "/grid"),
    ({"grid": {"surrogate.latent": [2, 0]}}, "/grid/surrogate.latent/1"),
    ({"grid": {"surrogate": [{}], "surrogate.latent": [2, 3]}}, "/grid"),
    ({"grid": {"surrogate.linear.kind": ["modal", "x"]}}, "/grid/surrogate"),
    ({"base": NINE}, "/base/surrogate/latent"),
    ({"grid": {}, "candidates": [{"seed": 1}, {"seed": 1}]}, "/candidates/1"),
    (
        {"grid": {}, "candidates": [{}, {"warm_start": "nobody"}]},
        "/candidates/1/warm_start",
    ),
    ({"split": {"validation": 0}}, "/split/validation"),
    ({"alias": "latest"}, "/alias"),
    ({"ensemble": 3}, "/ensemble"),
    ({"ensemble": 2, "base": {"members": 2}}, "/ensemble"),
    ({"ensemble": 2, "base": {"warm_start": "m"}}, "/ensemble"),
]


class Queue:
    """The services around one sweep."""

    def __init__(self, database, blobs, settings, clock, tmp_path) -> None:
        self.sent = Sent()
        self.jobs = Jobs(database, self.sent, clock=clock)
        self.leases = Leases(database, self.sent, lease_seconds=15, clock=clock)
        self.unsent = Unsent(database, clock=clock)
        self.candidates = Candidates(database, clock=clock)
        datasets = Datasets(database, blobs, settings)
        self.dataset = added(datasets, tmp_path)
        self.sweeps = Sweeps(Registry(database, blobs), datasets, self.jobs)

    def asked(self, **change) -> SweepJob:
        body = {"dataset": self.dataset, "model": "m", "grid": {"seed": [0, 1]}}
        return SweepJob.model_validate({**body, **change})

    def submit(self, key: str | None = None, **change):
        return self.sweeps.submit(
            self.asked(**change), owner="me", idempotency_key=key
        )[0]

    def candidates_of(self, sweep) -> list[str]:
        return [each["job"] for each in sweep.request["candidates"]]

    def fail(self, id: str) -> None:
        claim = self.leases.claim(self.jobs.get(id).queue, "w")
        assert claim is not None
        assert claim.job.id == id
        self.leases.fail(claim, {"code": "training_error", "detail": "no use"})


@pytest.fixture
def queue(any_database, blobs, settings, clock, tmp_path) -> Queue:
    return Queue(any_database, blobs, settings, clock, tmp_path)


def test_a_grid_is_written_out_as_trainings_that_hold_the_same_out(queue) -> None:
    base = {"training": {"iterations": 5}, "surrogate": {"latent": 3}}
    grid = {"seed": [4, 5], "surrogate.latent": [2, 3]}
    sweep = queue.submit(base=base, grid=grid, tags={"a": "b"})
    planned = PlannedSweep.model_validate(sweep.request)
    assert [each.settings for each in planned.candidates] == [
        {"seed": seed, "surrogate.latent": latent}
        for seed in (4, 5)
        for latent in (2, 3)
    ]
    assert sweep.parent is None
    assert "ensemble" not in sweep.request, "workers of before would refuse it"
    page = queue.jobs.list(parent=sweep.id).items
    jobs = {job.id: job for job in page}
    assert [each.job for each in planned.candidates] == sorted(jobs)
    first = jobs[sorted(jobs)[0]]
    assert (first.kind, first.parent, first.owner) == ("training", sweep.id, "me")
    assert first.request["surrogate"] == {"latent": 2}
    assert first.request["training"] == {"iterations": 5}
    assert first.request["tags"] == {"a": "b"}
    splits = [job.request["split"] for job in page]
    assert splits == [{"validation": 0.1, "test": 0.1, "seed": 0}] * 4
    assert queue.sent.ids == sorted(jobs), "the sweep itself waits"


def test_candidates_one_by_one_lie_over_the_base(queue) -> None:
    base = {"seed": 7, "surrogate": {"latent": 3, "linear": {"kind": "modal"}}}
    two = [{}, {"surrogate": {"linear": {"kind": "hurwitz"}}}]
    sweep = queue.submit(base=base, grid={}, candidates=two)
    ids = queue.candidates_of(sweep)
    rows = [queue.jobs.get(id).request for id in ids]
    kinds = [row["surrogate"]["linear"]["kind"] for row in rows]
    assert kinds == ["modal", "hurwitz"]
    assert {row["surrogate"]["latent"] for row in rows} == {3}
    assert rows[0]["split"]["seed"] == 7


def test_another_kind_replaces_a_part_as_a_whole() -> None:
    base = {"linear": {"kind": "modal", "oscillating": 2}, "latent": 4}
    over = {"linear": {"kind": "hurwitz"}}
    assert merged(base, over) == {"linear": {"kind": "hurwitz"}, "latent": 4}
    same = {"linear": {"oscillating": 1}}
    assert merged(base, same)["linear"] == {"kind": "modal", "oscillating": 1}


def test_what_cannot_be_swept_is_refused_at_its_place(queue) -> None:
    for change, field in REFUSED:
        with pytest.raises(Invalid) as refused:
            queue.submit(**change)
        assert refused.value.field.startswith(field), change
    assert queue.jobs.list().items == (), "all candidates are there, or none"


@pytest.mark.parametrize("change", [{"candidates": [{}, {"seed": 1}]}, {"grid": {}}])
def test_one_form_is_asked_for(queue, change) -> None:
    with pytest.raises(ValueError, match="candidates and grid"):
        queue.asked(**change)


def test_a_key_makes_one_sweep_with_its_candidates(queue) -> None:
    sweep = queue.submit("key")
    assert queue.submit("key").id == sweep.id
    assert len(queue.jobs.list().items) == 3
    with pytest.raises(Invalid) as refused:
        queue.submit("key", model="n")
    assert refused.value.code == "idempotency_key_reused"


def test_a_sweep_is_sent_once_when_its_last_candidate_has_ended(queue, clock) -> None:
    sweep = queue.submit()
    first, second = queue.candidates_of(sweep)
    queue.fail(first)
    queue.candidates.note(sweep.id)
    clock.advance(1000)
    assert queue.unsent.take("rollout_jobs", waiting=0, older_than_s=0) == []
    assert queue.leases.claim(sweep.queue, "w") is None, "its candidates have not ended"
    assert queue.unsent.take_ready() == []
    queue.fail(second)
    assert queue.unsent.take_ready() == [("rollout_jobs", sweep.id)]
    assert queue.unsent.take_ready() == []
    clock.advance(31)
    assert queue.unsent.take("rollout_jobs", waiting=0, older_than_s=30) == [sweep.id]
    assert queue.leases.claim(sweep.queue, "w") is not None


def test_the_progress_of_a_sweep_is_how_many_have_ended(queue) -> None:
    sweep = queue.submit()
    first, second = queue.candidates_of(sweep)
    queue.candidates.note(sweep.id)
    assert queue.jobs.get(sweep.id).progress is None
    queue.fail(first)
    queue.candidates.note(sweep.id)
    queue.candidates.note(sweep.id)
    progress = queue.jobs.get(sweep.id).progress
    assert (progress["failed"], progress["candidates"]) == (1, 2)
    assert progress["fraction"] == 0.5
    told = [each for each in queue.jobs.events(sweep.id) if each.kind == "log"]
    assert [each.message for each in told] == ["0 of 2 candidates trained, 1 failed"]
    queue.fail(second)
    assert queue.leases.claim(sweep.queue, "w") is not None
    queue.candidates.note(sweep.id)
    assert queue.jobs.get(sweep.id).progress == progress, "a worker has it"


def test_what_ended_without_a_worker_is_noted_by_the_housekeeping(queue) -> None:
    sweep, other = queue.submit(), queue.submit(grid={"seed": [2, 3]})
    first, _ = queue.candidates_of(sweep)
    queue.jobs.cancel(first)
    for _ in range(2):
        queue.candidates.note_all()
    assert queue.jobs.get(sweep.id).progress["cancelled"] == 1
    assert queue.jobs.get(other.id).progress is None
    told = [each for each in queue.jobs.events(sweep.id) if each.kind == "log"]
    assert [each.message for each in told] == ["0 of 2 candidates trained, 1 cancelled"]


def test_who_was_cut_off_amid_a_note_holds_up_no_housekeeping(
    postgres_url, blobs, settings, clock, tmp_path
) -> None:
    database = Database(postgres_url)
    upgrade(database)
    queue = Queue(database, blobs, settings, clock, tmp_path)
    held, other = queue.submit(), queue.submit(grid={"seed": [2, 3]})
    for sweep in (held, other):
        queue.jobs.cancel(queue.candidates_of(sweep)[0])
    with ThreadPoolExecutor(1) as thread, database.transaction() as connection:
        assert lock_waiting(connection, held.id) is not None
        thread.submit(queue.candidates.note_all).result(15)
    assert queue.jobs.get(held.id).progress is None
    assert queue.jobs.get(other.id).progress["cancelled"] == 1
    queue.candidates.note_all()
    assert queue.jobs.get(held.id).progress["cancelled"] == 1
    database.close()


def test_a_cancelled_sweep_cancels_its_candidates_and_is_retried_whole(queue) -> None:
    sweep = queue.submit()
    first, second = queue.candidates_of(sweep)
    claim = queue.leases.claim("training", "w")
    assert claim is not None
    assert claim.job.id == first
    assert queue.jobs.cancel(sweep.id).state == "cancelled"
    assert queue.jobs.get(second).state == "cancelled"
    assert queue.jobs.get(first).cancel_requested
    with pytest.raises(Conflict, match="1 candidates of job"):
        queue.jobs.retry(sweep.id)
    queue.leases.cancel(claim)
    assert queue.unsent.take_ready() == []
    queue.sent.ids.clear()
    assert queue.jobs.retry(sweep.id).state == "queued"
    assert queue.sent.ids == [first, second]
    again = queue.jobs.get(first)
    assert (again.state, again.cancel_requested) == ("queued", False)


def test_a_retry_leaves_the_candidates_that_succeeded(queue, any_database) -> None:
    sweep = queue.submit()
    first, second = queue.candidates_of(sweep)
    claim = queue.leases.claim("training", "w")
    assert claim is not None
    assert claim.job.id == first
    result = {"model": "m", "version": 1, "digest": "d"}
    with any_database.transaction() as connection:
        queue.leases.succeed(connection, claim, result, "version 1 of m")
    queue.fail(second)
    outcomes = queue.candidates.outcomes(queue.jobs.get(sweep.id))
    assert [(each.state, each.version) for each in outcomes] == [
        ("succeeded", 1),
        ("failed", None),
    ]
    assert outcomes[0].seconds == 0.0
    assert outcomes[1].error == {"code": "training_error", "detail": "no use"}
    queue.fail(sweep.id)
    queue.sent.ids.clear()
    queue.jobs.retry(sweep.id)
    assert queue.sent.ids == [second]
    assert queue.jobs.get(first).state == "succeeded"
    queue.fail(second)
    queue.fail(sweep.id)
    assert queue.jobs.get(sweep.id).state == "failed"


def test_of_a_retry_and_the_deletion_of_a_parent_one_is_refused(
    queue, any_database, blobs
) -> None:
    registry = Registry(any_database, blobs)

    def parent(seed: int) -> int:
        made = small_surrogate(normalisation=LINEAR, seed=seed)
        publish(any_database, blobs, "small", made)
        latest = registry.model("small").latest
        assert latest is not None
        return latest

    def cancelled(number: int):
        sweep = queue.submit(base={"warm_start": f"small/{number}"})
        return queue.jobs.cancel(sweep.id)

    parent(0)
    number = parent(1)
    sweep = cancelled(number)
    registry.delete_version("small", number)
    with pytest.raises(Conflict) as refused:
        queue.jobs.retry(sweep.id)
    assert refused.value.code == "version_deleted"
    states = {queue.jobs.get(id).state for id in queue.candidates_of(sweep)}
    assert states == {"cancelled"}
    for seed in range(2, 7):
        number = parent(seed)
        sweep = cancelled(number)
        with ThreadPoolExecutor(2) as pool:
            calls = (
                pool.submit(queue.jobs.retry, sweep.id),
                pool.submit(registry.delete_version, "small", number),
            )
        codes = [getattr(each.exception(), "code", None) for each in calls]
        assert codes in (["version_deleted", None], [None, "version_in_use"])


def test_a_dataset_is_kept_while_a_sweep_waits(queue) -> None:
    sweep = queue.submit()
    for each in queue.candidates_of(sweep):
        queue.fail(each)
    with pytest.raises(Conflict):
        queue.sweeps.datasets.delete(queue.dataset)
