"""Uploads and retries under Idempotency-Keys: done once, whoever asks how often."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from services.blobs import Blobs
from services.database import tables
from services.database.engine import Database
from services.database.idempotency import Asked, remember
from services.datasets import Datasets
from services.errors import Conflict, Gone, Invalid
from services.jobs import Jobs
from services.leases import Leases
from services.registry import Registry
from services.settings import Settings
from tests.services.test_jobs import REQUEST, Sent
from tests.services.test_registry import publish


@pytest.fixture
def datasets(any_database: Database, blobs: Blobs, settings: Settings, clock):
    return Datasets(any_database, blobs, settings, clock=clock)


@pytest.fixture
def jobs(any_database: Database, clock) -> Jobs:
    return Jobs(any_database, Sent(), clock=clock)


@pytest.fixture
def cancelled(jobs: Jobs) -> str:
    job, _ = jobs.submit("dataset", REQUEST, owner="me")
    return jobs.cancel(job.id).id


@pytest.fixture
def other_file(tmp_path: Path) -> Path:
    path = tmp_path / "other.npz"
    np.savez(path, states=np.ones((3, 4, 2)), times=np.linspace(0.0, 1.0, 4))
    return path


def upload(datasets: Datasets, path: Path, *, owner="me", name=None, key="k"):
    return datasets.upload(path, owner=owner, name=name, idempotency_key=key)


def keys(database: Database) -> set[str]:
    with database.reading() as connection:
        found = connection.execute(sa.select(tables.idempotency_keys.c.idempotency_key))
        return set(found.scalars())


def test_a_key_keeps_one_upload_of_each_owner(datasets, small_file) -> None:
    first, was_there = upload(datasets, small_file)
    again, is_again = upload(datasets, small_file)
    assert (was_there, is_again) == (False, True)
    assert again == first
    others = [
        upload(datasets, small_file, owner="you"),
        upload(datasets, small_file, key="other"),
        upload(datasets, small_file, key=None),
    ]
    assert not any(replayed for _, replayed in others)
    ids = {record.id for record in datasets.list().items}
    assert ids == {first.id, *(record.id for record, _ in others)}
    assert len(ids) == 4


def test_a_key_for_another_content_or_name_is_refused(
    datasets, small_file, other_file
) -> None:
    first, _ = upload(datasets, small_file)
    for path, name in ((other_file, None), (small_file, "named")):
        with pytest.raises(Invalid, match="Idempotency-Key") as refused:
            upload(datasets, path, name=name)
        assert refused.value.code == "idempotency_key_reused"
    assert datasets.list().items == (first,)
    assert len(list(datasets.blobs.list("datasets"))) == 1


def test_a_refused_file_leaves_its_key_free(datasets, small_file, tmp_path) -> None:
    wrong = tmp_path / "wrong.npz"
    wrong.write_bytes(b"nothing")
    with pytest.raises(Invalid, match="file"):
        upload(datasets, wrong)
    assert upload(datasets, small_file)[1] is False


def test_an_upload_that_was_deleted_is_not_kept_again(datasets, small_file) -> None:
    first, _ = upload(datasets, small_file)
    datasets.delete(first.id)
    with pytest.raises(Gone, match=first.id):
        upload(datasets, small_file)
    assert datasets.list().items == ()
    assert list(datasets.blobs.list("datasets")) == []


def test_a_key_of_an_upload_is_forgotten_after_a_day(
    datasets, any_database, small_file, other_file, clock
) -> None:
    first, _ = upload(datasets, small_file)
    upload(datasets, small_file, key="old")
    clock.advance(25 * 3600)
    second, replayed = upload(datasets, other_file)
    assert not replayed
    assert second.digest != first.digest
    assert keys(any_database) == {"k"}, "rows of old keys go"


@pytest.mark.parametrize("is_same", [True, False], ids=["same", "another"])
def test_uploads_at_once_under_one_key_are_one_dataset(
    datasets, small_file, other_file, is_same
) -> None:
    paths = [small_file, small_file if is_same else other_file] * 3
    with ThreadPoolExecutor(len(paths)) as threads:
        asked = [threads.submit(upload, datasets, path) for path in paths]
        refused = [each.exception() for each in asked]
    (kept,) = datasets.list().items
    made = [each.result()[0] for each in asked if each.exception() is None]
    assert made == [kept] * (6 if is_same else 3)
    codes = [getattr(error, "code", error) for error in refused if error is not None]
    assert codes == ["idempotency_key_reused"] * (6 - len(made))
    assert [*datasets.blobs.list("datasets")] == [f"datasets/{kept.digest}"]


def test_a_retry_is_done_once_for_its_key(jobs, cancelled) -> None:
    again = [
        jobs.retry(cancelled, owner="me", idempotency_key="k").state for _ in range(3)
    ]
    assert again == ["queued"] * 3
    assert jobs._outbox.sender.ids == [cancelled] * 2, "submitted, and retried once"
    for owner, key in (("me", "other"), ("you", "k"), ("me", None)):
        with pytest.raises(Conflict, match="queued"):
            jobs.retry(cancelled, owner=owner, idempotency_key=key)


def test_an_old_retry_sent_late_queues_nothing(jobs, any_database, cancelled) -> None:
    leases = Leases(any_database, Sent(), lease_seconds=15, clock=jobs.clock)
    for key in ("first", "second"):
        jobs.retry(cancelled, owner="me", idempotency_key=key)
        claim = leases.claim("datasets", "worker")
        leases.fail(claim, {"code": "wrong", "detail": "it failed"})
    for key in ("first", "second"):
        found = jobs.retry(cancelled, owner="me", idempotency_key=key)
        assert found.state == "failed"
    assert jobs.retry(cancelled, owner="me", idempotency_key="third").state == "queued"


def test_a_retry_sent_late_is_answered_where_its_version_is_gone(
    jobs, any_database, blobs, clock
) -> None:
    registry = Registry(any_database, blobs, clock=clock)
    # Without a certificate it is no champion, and may be deleted.
    number = publish(registry, certificate={})
    digest = registry.version("robertson", number).digest
    job, _ = jobs.submit("rollout", {"kind": "rollout", "digest": digest}, owner="me")
    for state in ("queued", "cancelled"):
        jobs.cancel(job.id)
        found = jobs.retry(job.id, owner="me", idempotency_key="k")
        assert found.state == state, "done once"
    registry.delete_version("robertson", number)
    again = jobs.retry(job.id, owner="me", idempotency_key="k")
    assert again == jobs.get(job.id)
    with pytest.raises(Conflict, match="has been deleted"):
        jobs.retry(job.id, owner="me", idempotency_key="another")


def test_a_key_of_a_retry_is_for_one_job(jobs, cancelled) -> None:
    jobs.retry(cancelled, owner="me", idempotency_key="k")
    other, _ = jobs.submit("dataset", REQUEST, owner="me")
    jobs.cancel(other.id)
    with pytest.raises(Invalid, match="Idempotency-Key"):
        jobs.retry(other.id, owner="me", idempotency_key="k")
    assert jobs.get(other.id).state == "cancelled"


def test_retries_at_once_under_one_key_queue_a_job_once(jobs, cancelled) -> None:
    def retry() -> str:
        return jobs.retry(cancelled, owner="me", idempotency_key="k").state

    with ThreadPoolExecutor(6) as threads:
        found = [threads.submit(retry) for _ in range(6)]
    assert [each.result() for each in found] == ["queued"] * 6
    told = [each.message for each in jobs.events(cancelled)]
    assert told == ["queued", "cancelled", "queued again by request"]


@pytest.mark.parametrize("any_database", ["postgresql"], indirect=True)
@pytest.mark.parametrize("overtakes", ["before the look", "after it"])
def test_a_retry_that_another_overtakes_tells_the_job_as_it_is(
    jobs, any_database, cancelled, monkeypatch, overtakes
) -> None:
    # Where one transaction sees what another commits between two of its reads.
    other = Jobs(any_database, Sent(), clock=jobs.clock)
    read = jobs._row

    def overtaken(*args, **options):
        row = read(*args, **options)
        other.retry(cancelled, owner="me", idempotency_key="k")
        return row if overtakes == "after it" else read(*args, **options)

    monkeypatch.setattr(jobs, "_row", overtaken)
    again = jobs.retry(cancelled, owner="me", idempotency_key="k")
    assert again == other.get(cancelled)
    assert again.state == "queued"


@pytest.mark.parametrize("any_database", ["postgresql"], indirect=True)
def test_a_job_that_ends_while_a_retry_looks_is_not_queued(
    jobs, any_database, monkeypatch
) -> None:
    # Its versions were held for nobody until then.
    job, _ = jobs.submit("dataset", REQUEST, owner="me")
    leases = Leases(any_database, Sent(), lease_seconds=15, clock=jobs.clock)
    claim = leases.claim("datasets", "worker")
    read = jobs._row

    def ending(*args, **options):
        row = read(*args, **options)
        leases.fail(claim, {"code": "wrong", "detail": "it failed"})
        return row

    monkeypatch.setattr(jobs, "_row", ending)
    with pytest.raises(Conflict, match="is running; only a failed"):
        jobs.retry(job.id)
    monkeypatch.undo()
    assert jobs.get(job.id).state == "failed"


@pytest.mark.parametrize("any_database", ["postgresql"], indirect=True)
def test_who_waited_for_a_content_sees_the_key_of_who_had_it(
    datasets, small_file
) -> None:
    kept = datasets.upload(small_file, owner="me")[0]
    names = ("digest", "size_bytes", "summary", "owner", "name")
    values = {name: getattr(kept, name) for name in names}
    asked = Asked("me", "k", "the same")
    with ThreadPoolExecutor(1) as threads:
        with datasets.database.transaction() as connection:
            first = datasets.register(connection, **values)
            remember(connection, asked, first.id, first.created_at)
            waiting = threads.submit(datasets._keep, asked, values)
            with pytest.raises(TimeoutError):
                waiting.result(0.5)
        assert waiting.result(30) == first
