"""Rollout jobs through a real worker: more rows than an answer holds, in chunks."""

import contextlib
import io
import signal
import threading
import time

import jax
import numpy as np
import pytest

from services.results import Results
from services.rollouts.job_request import RolloutJob
from services.rollouts.job_submit import RolloutJobs
from services.rollouts.served import Served
from spnode_core.spec import Signature, SurrogateSpec
from tests.api.deployment import MODELS, publish
from tests.core.models import random_states
from tests.worker.conftest import deployment

MIB = 2**20
TIMES = [0.1, 1.0, 10.0, 100.0]
# 4 times and 3 states: 96 bytes a row, so 640 rows fit, and 512 are whole tiles.
CHUNK_BYTES = 80 * 1024
MANY = 40_000
RUN_S, STOP_S = 0.01, 0.1


class Rollouts:
    """A deployment with one model, and what submits rollout jobs to it."""

    def __init__(self, stack, name="small"):
        self.stack = stack
        with jax.enable_x64():
            self.surrogate = MODELS[name]()
            publish(stack.database, stack.blobs, name, self.surrogate)
        record = stack.registry.resolve(name)
        self.served = Served(
            name,
            record.number,
            record.digest,
            Signature.model_validate(record.signature),
            SurrogateSpec.model_validate(record.spec),
        )
        self.results = Results(stack.database, stack.blobs, stack.settings)

    def submit(self, x0, times=TIMES, chunk_bytes=CHUNK_BYTES, **fields):
        settings = self.stack.settings.model_copy(
            update={"result_chunk_bytes": chunk_bytes}
        )
        jobs = RolloutJobs(settings, self.stack.datasets, self.stack.jobs, self.results)
        path = settings.data_folder / "sent.npz"
        np.savez(path, x0=x0, times=np.array(times), request="{}")
        asked = RolloutJob.model_validate({"model": self.served.model, **fields})
        return jobs.submit(asked, self.served, path, owner="me")[0]

    def chunks_of(self, job):
        """The arrays of each chunk."""
        for described in self.results.index(job)["chunks"]:
            chunk = self.results.chunk(job, described["number"])
            content = self.stack.blobs.get(chunk.key(job.id))
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                yield {name: archive[name] for name in archive.files}

    def reached(self, job, rows):
        """Wait until so many rows are kept."""

        def is_reached(_):
            return sum(chunk.rows for chunk in self.results.chunks(job.id)) >= rows

        return self.stack.wait(job.id, is_reached, 250)

    @contextlib.contextmanager
    def slowed(self):
        """The worker runs a part of the time only: its job does not end meanwhile."""
        (worker,) = self.stack.workers
        ended = threading.Event()

        def stop_and_go():
            while not ended.wait(RUN_S):
                worker.send_signal(signal.SIGSTOP)
                ended.wait(STOP_S)
                worker.send_signal(signal.SIGCONT)

        thread = threading.Thread(target=stop_and_go)
        thread.start()
        try:
            yield worker
        finally:
            ended.set()
            thread.join()

    def files(self, job):
        """When each file of a chunk was written."""
        folder = self.stack.settings.data_folder / "store" / "results" / job.id
        return {
            path.relative_to(folder).as_posix(): path.stat().st_mtime_ns
            for path in folder.glob("0*/*")
            # Half of a file has a name of its own.
            if "#" not in path.name
        }

    def check(self, job, x0, times=TIMES):
        """Every row once, in order, as the surrogate has it."""
        found = list(self.chunks_of(job))
        ends = np.cumsum([len(chunk["x"]) for chunk in found])
        assert [int(chunk["start"]) for chunk in found] == [0, *ends[:-1]]
        x = np.concatenate([chunk["x"] for chunk in found])
        assert len(x) == len(x0)
        sample = np.linspace(0, len(x0) - 1, 200).astype(int)
        with jax.enable_x64():
            expected = self.surrogate.rollout(x0[sample], np.array(times))
        np.testing.assert_allclose(x[sample], expected, rtol=1e-9, atol=1e-14)


@pytest.fixture(scope="module")
def rollouts(valkey, tmp_path_factory, compiled):
    folder = tmp_path_factory.mktemp("rollouts")
    with deployment(valkey, folder, compiled) as stack:
        stack.start_worker()
        yield Rollouts(stack)


def test_a_result_many_times_larger_takes_no_more_memory(rollouts) -> None:
    times, chunk_bytes = np.linspace(0.5, 50, 100), 2 * MIB
    peaks = []
    # The first one fills some chunks, too.
    for rows in (2500, MANY):
        x0 = random_states(rows)
        job = rollouts.submit(x0, times, chunk_bytes)
        ended = rollouts.stack.end(job.id, 280)
        assert ended.state == "succeeded", ended.error
        index = rollouts.results.index(ended)
        assert all(chunk["size_bytes"] <= chunk_bytes for chunk in index["chunks"])
        peaks.append(ended.result["peak_memory_bytes"])
    assert index["size_bytes"] > 40 * chunk_bytes
    # About four copies of a chunk, and what the allocator keeps.
    assert peaks[1] - peaks[0] < 12 * chunk_bytes, peaks
    rollouts.check(ended, x0, times)


def test_a_cancelled_job_goes_on_with_the_chunks_that_are_whole(rollouts) -> None:
    x0 = random_states(MANY, seed=1)
    with rollouts.slowed():
        job = rollouts.submit(x0)
        rollouts.reached(job, 2000)
        asked = time.time()
        rollouts.stack.jobs.cancel(job.id)
    cancelled = rollouts.stack.end(job.id, 60)
    assert cancelled.state == "cancelled"
    assert cancelled.finished_at.timestamp() - asked < 10
    chunks = rollouts.results.chunks(job.id)
    assert 2000 <= sum(chunk.rows for chunk in chunks) < MANY
    before = rollouts.files(job)
    store = rollouts.stack.settings.data_folder / "store"
    damaged, missing, forgotten = chunks[:3]
    for chunk in (damaged, forgotten):
        content = (store / chunk.key(job.id)).read_bytes()
        (store / chunk.key(job.id)).write_bytes(content[:-1] + b"!")
    (store / missing.key(job.id)).unlink()
    with rollouts.stack.database.transaction() as connection:
        # As earlier versions left it where they were killed between row and content.
        rollouts.results.forget_chunks(connection, job.id, [forgotten])

    rollouts.stack.jobs.retry(job.id)
    ended = rollouts.stack.end(job.id, 250)
    assert ended.state == "succeeded", ended.error
    after = rollouts.files(job)
    assert len(after) == len(rollouts.results.chunks(job.id)) == ended.result["chunks"]
    made_anew = {name for name in before if after[name] != before[name]}
    assert made_anew == {
        chunk.key(job.id).removeprefix(f"results/{job.id}/")
        for chunk in (damaged, missing, forgotten)
    }
    rollouts.check(ended, x0)


def test_a_killed_worker_loses_no_chunk_and_makes_none_twice(rollouts) -> None:
    x0 = random_states(MANY, seed=2)
    with rollouts.slowed() as worker:
        job = rollouts.submit(x0)
        rollouts.reached(job, 2000)
        worker.kill()
        worker.wait()
    before = rollouts.files(job)
    kept = rollouts.results.chunks(job.id)
    assert rollouts.stack.jobs.get(job.id).state == "running"

    rollouts.stack.start_worker()
    ended = rollouts.stack.end(job.id, 280)
    assert (ended.state, ended.attempt) == ("succeeded", 2), ended.error
    after = rollouts.files(job)
    assert before.items() <= after.items(), "no chunk was written again"
    assert len(after) == ended.result["chunks"]
    assert rollouts.results.chunks(job.id)[: len(kept)] == kept
    rows = [point["rows"] for point in rollouts.stack.jobs.history(job.id)]
    assert rows == sorted(rows), "progress never goes back"
    rollouts.check(ended, x0)
