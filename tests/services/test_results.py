"""Results of rollout jobs in the database and the store: made, kept, deleted."""

import pytest

from services.blobs import Blobs
from services.errors import Conflict, Gone, NotFound
from services.identity import new_id, sha256
from services.jobs import Jobs
from services.leases import Leases
from services.results import Chunk, Results

DAY = 24 * 3600
REQUEST = {"kind": "rollout", "model": "m", "rows": 6, "chunk_rows": 3}


@pytest.fixture
def results(database, blobs, settings, clock) -> Results:
    return Results(database, blobs, settings, clock=clock)


@pytest.fixture
def jobs(database, clock) -> Jobs:
    return Jobs(database, clock=clock)


@pytest.fixture
def leases(database, clock) -> Leases:
    return Leases(database, clock=clock)


def chunk(number: int, content: bytes = b"rows") -> Chunk:
    return Chunk(number, 3 * number, 3, sha256(content), len(content))


def added(results, claim, leases, number, tmp_path, content=b"rows") -> Chunk:
    path = tmp_path / "chunk"
    path.write_bytes(content)
    made = chunk(number, content)
    results.put_chunk(claim.job.id, made, path)
    with results.database.transaction() as connection:
        leases.guard(connection, claim)
        results.add_chunk(connection, claim.job.id, made)
    return made


@pytest.fixture
def ended(jobs, leases, results, tmp_path):
    """A job that has succeeded with two chunks, and inputs."""
    path = tmp_path / "inputs"
    path.write_bytes(b"x0")
    id = new_id("job", now=jobs.clock())
    request = {**REQUEST, "inputs": results.put_inputs(id, path)}
    jobs.submit("rollout", request, owner="me", id=id)
    claim = leases.claim("rollout_jobs", "worker")
    for number in range(2):
        added(results, claim, leases, number, tmp_path, b"rows %d" % number)
    made = {"digest": results.put_index(id, {"rows": 6}), "chunks": 2}
    with results.database.transaction() as connection:
        leases.succeed(connection, claim, made, "done")
    return jobs.get(id)


def kept(blobs: Blobs, job) -> list[str]:
    return list(blobs.list(f"results/{job.id}"))


def test_a_result_has_an_index_and_chunks(results, ended, clock) -> None:
    index = results.index(ended)
    assert index["rows"] == 6
    assert index["expires_at"].startswith("20")
    assert [each.number for each in results.chunks(ended.id)] == [0, 1]
    second = results.chunk(ended, 1)
    assert results.blobs.get(second.key(ended.id)) == b"rows 1"
    with pytest.raises(NotFound, match=r"chunk '2'.*has 2, counted from 0"):
        results.chunk(ended, 2)


def test_a_result_is_there_when_its_job_has_succeeded(results, jobs) -> None:
    queued, _ = jobs.submit("rollout", REQUEST, owner="me")
    for look in (results.index, lambda job: results.chunk(job, 0)):
        with pytest.raises(Conflict, match="is queued") as refused:
            look(queued)
        assert refused.value.code == "result_not_ready"
    other, _ = jobs.submit("dataset", {"kind": "dataset"}, owner="me")
    with pytest.raises(NotFound, match="a dataset job says what it made"):
        results.index(other)


def test_a_result_goes_when_it_is_due_and_not_before(
    results, blobs, ended, clock
) -> None:
    assert len(kept(blobs, ended)) == 4
    clock.advance(6.9 * DAY)
    assert results.sweep() == []
    assert results.index(ended)["rows"] == 6
    clock.advance(0.2 * DAY)
    assert results.sweep() == [ended.id]
    assert kept(blobs, ended) == []
    assert results.chunks(ended.id) == []
    assert results.sweep() == []


def test_a_deleted_result_is_gone_and_says_since_when(
    results, jobs, blobs, ended
) -> None:
    results.drop(ended.id)
    assert kept(blobs, ended) == []
    with pytest.raises(Gone, match="was deleted at 20") as refused:
        results.index(jobs.get(ended.id))
    assert refused.value.code == "result_dropped"
    results.drop(ended.id)
    # Whoever looked at the job just before is told the same.
    for read in (results.index, lambda job: results.chunk(job, 0)):
        with pytest.raises(Gone, match="was deleted at 20"):
            read(ended)


def test_a_deletion_that_was_cut_off_is_finished_by_the_next_sweep(
    results, blobs, ended
) -> None:
    (content, *_) = kept(blobs, ended)
    bytes_before = blobs.get(content)
    results.drop(ended.id)
    blobs.put(content, bytes_before)
    assert results.sweep() == [ended.id]
    assert kept(blobs, ended) == []


def test_what_a_job_may_still_need_is_kept(results, jobs, leases, tmp_path) -> None:
    queued, _ = jobs.submit("rollout", REQUEST, owner="me")
    with pytest.raises(Conflict, match="is queued; cancel it"):
        results.drop(queued.id)
    claim = leases.claim(queued.queue, "worker")
    added(results, claim, leases, 0, tmp_path)
    results.clock.advance(30 * DAY)
    assert results.sweep() == []
    leases.fail(claim, {"code": "rollout_failed", "detail": "row 1 …"})
    assert results.sweep() == []
    jobs.retry(queued.id)
    results.clock.advance(30 * DAY)
    assert results.sweep() == [], "it is queued again"
    assert len(results.chunks(queued.id)) == 1


def test_a_job_without_inputs_cannot_be_retried(results, jobs, leases) -> None:
    job, _ = jobs.submit("rollout", REQUEST, owner="me")
    leases.fail(leases.claim(job.queue, "worker"), {"code": "x", "detail": "y"})
    results.drop(job.id)
    with pytest.raises(Conflict, match="submit it anew") as refused:
        jobs.retry(job.id)
    assert refused.value.code == "result_dropped"


def test_inputs_whose_job_never_came_go_after_a_day(results, clock, tmp_path) -> None:
    path = tmp_path / "inputs"
    path.write_bytes(b"x0")
    id = new_id("job", now=clock())
    results.put_inputs(id, path)
    clock.advance(0.9 * DAY)
    assert results.sweep() == []
    clock.advance(0.2 * DAY)
    assert results.sweep() == [id]


def test_a_chunk_that_is_damaged_or_missing_is_not_whole(
    results, jobs, leases, tmp_path, settings
) -> None:
    job, _ = jobs.submit("rollout", REQUEST, owner="me")
    claim = leases.claim(job.queue, "worker")
    made = added(results, claim, leases, 0, tmp_path)
    assert results.is_whole(job.id, made)
    stored = settings.data_folder / "store" / made.key(job.id)
    stored.write_bytes(b"rowz")
    assert not results.is_whole(job.id, made)
    results.blobs.delete(made.key(job.id))
    assert not results.is_whole(job.id, made)
    with results.database.transaction() as connection:
        results.forget_chunks(connection, job.id, [made])
    assert results.chunks(job.id) == []


@pytest.mark.parametrize("is_row_left", [True, False])
def test_a_chunk_whose_mending_was_cut_off_is_made_whole(
    results, jobs, leases, tmp_path, settings, is_row_left
) -> None:
    """Killed with the content gone and its row left, or the other way round."""
    job, _ = jobs.submit("rollout", REQUEST, owner="me")
    claim = leases.claim(job.queue, "worker")
    made = added(results, claim, leases, 0, tmp_path)
    (settings.data_folder / "store" / made.key(job.id)).write_bytes(b"rowz")
    if is_row_left:
        results.blobs.delete(made.key(job.id))
        (left,) = results.chunks(job.id)
        assert not results.is_whole(job.id, left), "the next attempt makes it anew"
    with results.database.transaction() as connection:
        results.forget_chunks(connection, job.id, [made])
    again = added(results, claim, leases, 0, tmp_path)
    assert results.is_whole(job.id, again)
    assert results.chunks(job.id) == [made] == [again]
