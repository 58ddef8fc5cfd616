"""The moment of publishing: one transaction, checked by the claim."""

import errno
import json
import multiprocessing
import resource
import socket
import sqlite3
import sys
import threading
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from services.blobs import Blobs
from services.claims import CancelRequested, Claim
from services.database.engine import BUSY_TIMEOUT_MS
from services.database.migrate import upgrade
from services.errors import LeaseLost, Unavailable
from services.jobs import Jobs
from services.settings import Settings
from services.work_folder import sweep_jobs, sweep_requests, working
from spnode_core.dataset import save_dataset
from spnode_core.systems import generate
from tests.silent_store import silent_store
from tests.worker.idle import much, nothing
from worker import child, supervisor
from worker.context import Context, open_context
from worker.jobs import _end, _put_off, publish, run_job
from worker.keeper import Keeper
from worker.store_calls import unless_ended
from worker.supervisor import Ending

OUTCOME = {
    "digest": "",
    "signature": {"states": ["a"]},
    "spec": {},
    "card": {},
    "evaluation": {"test": {"scaled_mse": 1e-7}},
    "certificate": {"invariant_box": {"holds": True}},
}


@pytest.fixture
def context(tmp_path: Path):
    settings = Settings(data_folder=tmp_path / "data", redis_url="redis://127.0.0.1:1")
    context = open_context(settings, ("training",))
    upgrade(context.database)
    yield context
    context.queue.close()
    context.database.close()


@pytest.fixture
def claim(context: Context) -> Claim:
    request = {"kind": "training", "model": "m"}
    job, _ = Jobs(context.database).submit("training", request, owner="me")
    claim = context.leases.claim(job.queue, context.name)
    assert claim is not None
    return claim


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "artifact.spnode").write_bytes(b"an artifact")
    return tmp_path


def nothing_is_there(context: Context) -> bool:
    return (
        context.registry.models().items == ()
        and list(context.blobs.list("artifacts")) == []
    )


def test_a_version_and_the_end_of_its_job_are_one_step(context, claim, folder) -> None:
    publish(context, claim, folder, OUTCOME)
    job = Jobs(context.database).get(claim.job.id)
    assert job.state == "succeeded"
    assert job.result["version"] == 1
    assert context.registry.resolve("m").digest == job.result["digest"]
    with pytest.raises(LeaseLost):
        publish(context, claim, folder, OUTCOME)
    assert context.registry.model("m").latest == 1
    assert context.leases.claim(job.queue, "another") is None


def test_a_worker_that_lost_its_lease_publishes_nothing(context, claim, folder) -> None:
    context.leases.crash(claim, "as if another had taken it")
    with pytest.raises(LeaseLost):
        publish(context, claim, folder, OUTCOME)
    assert nothing_is_there(context)
    assert Jobs(context.database).get(claim.job.id).state == "queued"


def test_a_job_cancelled_while_it_publishes_publishes_nothing(
    context, claim, folder
) -> None:
    Jobs(context.database).cancel(claim.job.id)
    with pytest.raises(CancelRequested):
        publish(context, claim, folder, OUTCOME)
    assert nothing_is_there(context)


def test_who_failed_a_job_deletes_no_checkpoint_of_its_retry(
    context, claim, folder, monkeypatch
) -> None:
    fail, prefix = context.leases.fail, f"checkpoints/{claim.job.id}"
    kept = []

    def fail_and_be_paused(*given: object) -> None:
        """Meanwhile another worker has its retry, and has come far."""
        fail(*given)
        Jobs(context.database).retry(claim.job.id)
        later = context.leases.claim(claim.job.queue, "another")
        kept.append(context.blobs.put_content(prefix, b"a checkpoint"))
        context.leases.heartbeat(later, checkpoint=kept[0])

    monkeypatch.setattr(context.leases, "fail", fail_and_be_paused)
    error = {"code": "training_failed", "detail": "why"}
    _end(context, claim, folder, Ending("failed", {"error": error}))
    assert list(context.blobs.list(prefix)) == [f"{prefix}/{kept[0]}"]


def test_an_error_in_the_middle_leaves_neither_version_nor_end(
    context, claim, folder
) -> None:
    with pytest.raises(KeyError):
        publish(context, claim, folder, {**OUTCOME, "evaluation": {"test": {"x": 1}}})
    assert context.registry.models().items == ()
    assert Jobs(context.database).get(claim.job.id).state == "running"


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch):
    """A bucket whose server takes connections and never answers."""
    with silent_store(monkeypatch):
        yield Blobs("s3://bucket")


def cancel_soon(context: Context, id: str) -> threading.Thread:
    """Cancel a job after a second, when its worker waits for the store."""

    def cancel() -> None:
        time.sleep(1.0)
        Jobs(context.database).cancel(id)

    thread = threading.Thread(target=cancel)
    thread.start()
    return thread


def test_a_job_is_cancelled_while_its_worker_waits_for_its_inputs(
    context, claim, hanging
) -> None:
    # Its next attempt asks for this first.
    context.leases.heartbeat(claim, checkpoint="0" * 64)
    context.leases.release(claim, "the worker stopped")
    waits = replace(context, blobs=hanging)
    cancelling = cancel_soon(context, claim.job.id)
    began = time.monotonic()
    run_job(waits, multiprocessing.get_context("forkserver"), claim.job.queue)
    assert time.monotonic() - began < 4, "a second, and two to notice"
    cancelling.join()
    assert Jobs(context.database).get(claim.job.id).state == "cancelled"


def test_a_job_is_cancelled_while_its_worker_waits_to_publish(
    context, claim, folder, hanging
) -> None:
    waits = replace(context, blobs=hanging)
    ending = Ending("done", {"outcome": OUTCOME})
    cancelling = cancel_soon(context, claim.job.id)
    began = time.monotonic()
    with Keeper(context, claim) as keeper, pytest.raises(CancelRequested):
        unless_ended(keeper.check, lambda: _end(waits, claim, folder, ending))
    assert time.monotonic() - began < 4, "a second, and two to notice"
    cancelling.join()
    context.leases.cancel(claim)
    assert nothing_is_there(context)


def test_a_store_that_is_away_when_a_job_publishes_costs_no_attempt(
    context, claim, folder, hanging, monkeypatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("AWS_ENDPOINT", nobody)
    away = replace(context, blobs=Blobs("s3://bucket"))
    ending = Ending("done", {"outcome": OUTCOME})

    def attempt(context: Context, server: object, claim: Claim) -> str:
        _end(away, claim, folder, ending)
        return "done"

    monkeypatch.setattr("worker.jobs._attempt", attempt)
    context.leases.release(claim, "for the attempt that follows")
    run_job(context, multiprocessing.get_context("forkserver"), claim.job.queue)
    jobs = Jobs(context.database)
    now = jobs.get(claim.job.id)
    assert (now.state, now.attempt, now.error) == ("queued", 1, None)
    told = jobs.events(now.id)[-1].message
    assert told.startswith("the store does not answer for 'artifacts/")


def test_a_job_is_put_off_by_a_database_that_comes_back_within_its_lease(
    context, claim
) -> None:
    path = context.settings.data_folder / "spnode.db"
    held = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    held.execute("BEGIN IMMEDIATE")
    # Longer than a worker waits for the lock.
    letting_go = threading.Timer(BUSY_TIMEOUT_MS / 1000 + 1.0, held.close)
    letting_go.start()
    _put_off(context, claim, Unavailable("the store does not answer"))
    letting_go.join()
    now = Jobs(context.database).get(claim.job.id)
    assert (now.state, now.attempt) == ("queued", 1)


def test_who_ended_its_job_is_not_told_that_it_lost_it(context, claim) -> None:
    """The keeper notices that the job has ended before the last of it is deleted."""

    def end_and_tidy_up() -> str:
        context.leases.fail(claim, {"code": "training_failed", "detail": "why"})
        time.sleep(1.5)
        return "tidied up"

    with Keeper(context, claim) as keeper:
        assert unless_ended(keeper.check, end_and_tidy_up) == "tidied up"
        with pytest.raises(LeaseLost):
            keeper.check()


def test_a_full_disk_of_the_worker_costs_a_job_no_attempt(context, monkeypatch) -> None:
    jobs = Jobs(context.database)
    request = {"kind": "dataset", "system": "robertson", "trajectories": 2}
    job, _ = jobs.submit("dataset", request, owner="me")
    context.leases.rest = timedelta(seconds=-1)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("worker.jobs._fetch", full)
    for _ in range(job.max_attempts + 1):
        run_job(context, multiprocessing.get_context("forkserver"), job.queue)
        now = jobs.get(job.id)
        assert (now.state, now.attempt, now.error) == ("queued", 1, None)
    assert "No space left" in jobs.events(job.id)[-1].message


def test_a_store_that_does_not_answer_costs_a_job_no_attempt(context, tmp_path) -> None:
    """It is sent again when it has rested, however long that lasts."""
    path = tmp_path / "dataset.npz"
    save_dataset(generate("robertson", 2, seed=0), path)
    dataset = context.datasets.add(path, owner="me")
    request = {"kind": "training", "model": "m", "dataset": dataset.id}
    jobs = Jobs(context.database)
    job, _ = jobs.submit("training", request, owner="me")
    assert context.blobs.root is not None
    content = context.blobs.root / "datasets" / dataset.digest
    content.unlink()
    content.symlink_to(content)  # the system refuses to open it
    context.leases.rest = timedelta(seconds=-1)
    for _ in range(job.max_attempts + 1):
        run_job(context, multiprocessing.get_context("forkserver"), job.queue)
        now = jobs.get(job.id)
        assert (now.state, now.attempt, now.error) == ("queued", 1, None)
    told = jobs.events(job.id)[-1]
    assert told.level == "warning"
    assert told.message.startswith("the store does not answer for 'datasets/")
    assert context.unsent.take("training", waiting=0, older_than_s=0) == [job.id]


def test_a_full_disk_in_the_process_of_a_job_is_not_its_fault(
    context, claim, tmp_path, monkeypatch
) -> None:
    # Python would cut compiled modules off at the limit, and keep them so.
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    spawned = multiprocessing.get_context("spawn")
    ours, theirs = spawned.Pipe()
    request = {"kind": "dataset", "system": "robertson", "trajectories": 20}
    arguments = (theirs, request, "job_1", tmp_path, 10.0)
    process = spawned.Process(target=child.main, args=arguments)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The process inherits it.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        process.start()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    process.join(100)
    told = []
    while ours.poll():
        told.append(json.loads(ours.recv_bytes()))
    ending = told[-1]
    assert ending.pop("type") == "unavailable"
    assert ending["reason"].startswith("there is no room on this worker's disk")
    with pytest.raises(Unavailable, match="no room"):
        _end(context, claim, tmp_path, Ending("unavailable", ending))


def test_folders_of_dead_workers_are_swept(context) -> None:
    host = context.name.split(":")[0]
    job, own = f"job_{'0' * 26}", context.name.replace(":", "-")
    dead, foreign = f"{host}-4194999-abcdef-{job}", f"elsewhere-4194999-abcdef-{job}"
    living, mine = f"{host}-1-abcdef-{job}", f"{own}-{job}"
    request = f"body-{host}-4194999-abcd_123"
    for name in (dead, foreign, living, mine, request):
        (context.work_folder / name).mkdir(parents=True)
    sweep_jobs(context.settings, own)
    left = {path.name for path in context.work_folder.iterdir()}
    assert left == {foreign, living, mine, request}


def test_folders_of_dead_gateways_are_swept(context) -> None:
    host = context.name.split(":")[0]
    lost = [f"{what}-{host}-4194999-abcd_123" for what in ("body", "upload", "arrays")]
    in_use, job = f"body-{host}-1-abcd_123", f"{host}-4194999-abcdef-job_{'0' * 26}"
    with working(context.settings, "body") as predecessors:
        for name in (in_use, job, *lost):
            (context.work_folder / name).mkdir()
        sweep_requests(context.settings)
        assert not predecessors.exists(), "this process has no request yet"
    left = {path.name for path in context.work_folder.iterdir()}
    assert left == {in_use, job}


@pytest.mark.parametrize(("work", "ending"), [(nothing, "crashed"), (much, "done")])
def test_only_a_child_that_neither_tells_nor_computes_is_hung(
    context, claim, folder, monkeypatch, work, ending
) -> None:
    monkeypatch.setattr(supervisor.child, "main", work)
    monkeypatch.setattr(supervisor, "_SOME_CPU_S", 0.2)
    settings = context.settings.model_copy(update={"stall_seconds": 2.0})
    context = replace(context, settings=settings)
    server = multiprocessing.get_context("spawn")
    with Keeper(context, claim) as keeper:
        # Its tests' own method of starting: only that of workers is a fork server's.
        told = supervisor.Supervisor(context, server, claim, keeper, folder).run()  # pyright: ignore[reportArgumentType]
    assert told.type == ending
    if ending == "crashed":
        assert "neither told nor computed for 2 s" in told.message["reason"]
