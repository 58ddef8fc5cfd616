"""The sweep of contents that nothing refers to."""

import os
import threading

import pytest
import sqlalchemy as sa

from services.blobs import Blobs
from services.database import tables
from services.errors import Unavailable
from services.jobs import Jobs
from services.leases import Leases
from services.orphans import Orphans
from services.registry import Registry
from tests.services.test_registry import publish

AGE_S = 3600.0
KEPT_S = 7 * 24 * 3600.0


@pytest.fixture
def orphans(any_database, blobs: Blobs, clock) -> Orphans:
    return Orphans(any_database, blobs, older_than_s=AGE_S, kept_s=KEPT_S, clock=clock)


def test_a_content_goes_when_it_is_old_and_nothing_refers_to_it(
    orphans, any_database, blobs, clock
) -> None:
    registry = Registry(any_database, blobs, clock=clock)
    publish(registry, content=b"kept")
    left = [
        f"artifacts/{blobs.put_content('artifacts', b'left')}",
        f"datasets/{blobs.put_content('datasets', b'left')}",
    ]
    assert orphans.sweep() == [], "they may be on their way to their rows"
    clock.advance(AGE_S + 60)
    assert orphans.sweep() == left
    assert not any(map(blobs.exists, left))
    kept = registry.version("robertson", 1)
    assert blobs.get(kept.artifact_key) == b"kept"


def test_only_the_last_checkpoint_of_a_job_that_may_go_on_stays(
    orphans, any_database, blobs, clock
) -> None:
    jobs = Jobs(any_database, clock=clock)
    leases = Leases(any_database, clock=clock)
    found = {}
    for end in ("cancelled", "failed"):
        job, _ = jobs.submit("dataset", {"kind": "dataset"}, owner="me")
        claim = leases.claim(job.queue, "worker")
        assert claim is not None
        prefix = f"checkpoints/{job.id}"
        old = blobs.put_content(prefix, b"first")
        last = blobs.put_content(prefix, b"last")
        leases.heartbeat(claim, checkpoint=last)
        if end == "failed":
            leases.fail(claim, {"code": "training_failed", "detail": "why"})
        else:
            jobs.cancel(job.id)
            leases.cancel(claim)
        found[end] = {f"{prefix}/{old}": False, f"{prefix}/{last}": end == "cancelled"}
    nobody = f"checkpoints/job_gone/{blobs.put_content('checkpoints/job_gone', b'x')}"
    clock.advance(AGE_S + 60)
    swept = orphans.sweep()
    stays = {key: stay for each in found.values() for key, stay in each.items()}
    assert {key: key not in swept for key in stays} == stays
    assert nobody in swept
    clock.advance(KEPT_S)
    assert set(orphans.sweep()) == {key for key, stay in stays.items() if stay}


def test_the_checkpoints_of_an_attempt_that_follows_outlive_those_of_the_last(
    any_database, blobs, clock
) -> None:
    jobs = Jobs(any_database, clock=clock)
    leases = Leases(any_database, clock=clock)
    job, _ = jobs.submit("dataset", {"kind": "dataset"}, owner="me")
    prefix = f"checkpoints/{job.id}"

    def begin():
        claim = leases.claim(job.queue, "worker")
        assert claim is not None
        digest = blobs.put_content(prefix, b"the same to the byte")
        leases.heartbeat(claim, checkpoint=digest)
        return claim, f"{prefix}/{digest}"

    claim, key = begin()
    leases.fail(claim, {"code": "training_failed", "detail": "why"})
    deleting = threading.Event()

    class Slow(Blobs):
        """A store that takes its time to delete."""

        def delete(self, key):
            deleting.set()
            retrying.join(0.5)
            super().delete(key)

    def retry():
        assert deleting.wait(20)
        jobs.retry(job.id)
        begin()

    retrying = threading.Thread(target=retry)
    retrying.start()
    slow = Slow(f"file://{blobs.root}")
    orphans = Orphans(
        any_database, slow, older_than_s=AGE_S, kept_s=KEPT_S, clock=clock
    )
    orphans.drop_checkpoints(job.id)
    retrying.join(20)
    assert jobs.get(job.id).state == "running"
    assert blobs.exists(key)
    orphans.drop_checkpoints(job.id)
    assert blobs.exists(key), "somebody goes on from it"


def test_who_publishes_while_the_sweep_runs_keeps_its_artifact_or_hears_of_it(
    orphans, any_database, blobs, clock
) -> None:
    """Many rounds of both at once; a version without its content never exists."""
    registry = Registry(any_database, blobs)
    clock.advance(AGE_S + 60)
    refused, rounds = 0, 40
    for number in range(rounds):
        content = f"artifact {number}".encode()
        blobs.put_content("artifacts", content)
        sweep = threading.Thread(target=orphans.sweep)
        sweep.start()
        try:
            publish(registry, content=content)
        except Unavailable:
            refused += 1
        sweep.join()
    with any_database.reading() as connection:
        digests = connection.execute(sa.select(tables.versions.c.digest)).scalars()
        found = list(digests)
    assert len(found) == rounds - refused
    assert all(blobs.exists(f"artifacts/{digest}") for digest in found)


def test_what_a_killed_put_left_goes(orphans, blobs, clock) -> None:
    assert blobs.root is not None
    digest = blobs.put_content("datasets", b"whole")
    half, young = (blobs.root / "datasets" / f"{digest}#{n}" for n in (1, 2))
    half.write_bytes(b"wh")
    young.write_bytes(b"wh")
    clock.advance(AGE_S + 60)
    os.utime(young, (clock.now, clock.now))
    assert orphans.sweep() == [f"datasets/{digest}"]
    assert not half.exists()
    assert young.exists()
