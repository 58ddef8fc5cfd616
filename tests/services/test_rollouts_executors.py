import asyncio
import base64
import functools
import json
import signal
import threading
import time

import numpy as np
import psutil
import pytest
import redis

from services.blobs import Blobs, Damaged
from services.errors import DeadlinePassed, NotFound, Unavailable
from services.rollouts.executor import Batch, InlineExecutor, load_engine
from services.rollouts.failures import error_of, fields_of
from services.rollouts.remote import QueueExecutor
from services.rollouts.remote_worker import serve_batch
from services.settings import MIB
from services.workers import Workers
from spnode_core import artifact
from spnode_core.errors import InvalidInput
from tests.api.deployment import deployed, opened, wait_for
from tests.core.models import random_states, small_surrogate

X0 = random_states(20)
TIMES = np.array([0.5, 30.0, 200.0])


@pytest.fixture(scope="module")
def deployment():
    with deployed(models=("mixed",)) as deployment:
        with opened(deployment.settings) as (database, _):
            from services.registry import Registry

            deployment.digest = Registry(database, None).resolve("mixed").digest
        yield deployment


def make_inline(deployment):
    settings = deployment.settings
    return InlineExecutor(lambda: load_engine(settings, Blobs(settings.store_url)))


@pytest.fixture(params=["inline", "queue"])
def make(request, deployment):
    """What makes an executor of each kind, with a worker where it needs one."""
    if request.param == "inline":
        return lambda: make_inline(deployment)
    if "worker" not in deployment.processes:
        deployment.start("worker", "worker", "--rollouts")
    return lambda: QueueExecutor(deployment.settings)


def batch(deployment, x0=X0, seconds=60, **changes):
    fields = {
        "operation": "rollout",
        "digest": deployment.digest,
        "arrays": {"x0": x0, "times": TIMES},
        "deadline": time.monotonic() + seconds,
    }
    return Batch(**{**fields, **changes})


def run(executor, *batches):
    """Results or errors of batches that are given at once."""

    async def scenario():
        await executor.start()
        try:
            return await asyncio.gather(
                *(executor.run(each) for each in batches), return_exceptions=True
            )
        finally:
            await executor.close()

    return asyncio.run(scenario())


def test_every_executor_gives_the_library_s_rollout(make, deployment):
    (result,) = run(make(), batch(deployment))
    expected = np.asarray(deployment.surrogates["mixed"].rollout(X0, TIMES))
    scale = np.abs(expected).max(axis=(0, 1))
    np.testing.assert_allclose(result["x"] / scale, expected / scale, atol=1e-5)


def test_batches_come_back_to_whoever_sent_them(make, deployment):
    parts = run(make(), *[batch(deployment, X0[row : row + 2]) for row in range(19)])
    (whole,) = run(make(), batch(deployment))
    for row, part in enumerate(parts):
        np.testing.assert_array_equal(part["x"], whole["x"][row : row + 2])


def test_a_failing_batch_leaves_the_others_alone(make, deployment):
    good, bad, also_good = run(
        make(),
        batch(deployment),
        batch(deployment, digest="0" * 64),
        batch(deployment, X0[:1]),
    )
    assert isinstance(bad, NotFound)
    np.testing.assert_array_equal(good["x"][:1], also_good["x"])


def test_derivatives_come_through(make, deployment):
    weights = np.ones((len(X0), 1, len(TIMES), 3))
    arrays = {"x0": X0, "times": TIMES, "cotangents": weights}
    (result,) = run(make(), batch(deployment, operation="vjp", arrays=arrays))
    assert result["gradients.x0"].shape == (len(X0), 1, 3)
    assert np.isfinite(result["gradients.x0"]).all()


def test_without_a_worker_the_deadline_ends_the_wait():
    with deployed() as empty:
        empty.digest = "0" * 64
        began = time.monotonic()
        (error,) = run(QueueExecutor(empty.settings), batch(empty, seconds=1.0))
        assert isinstance(error, DeadlinePassed)
        assert time.monotonic() - began < 10


def test_loading_a_model_holds_up_no_other(deployment, tmp_path):
    blobs = Blobs(deployment.settings.store_url)
    surrogate = small_surrogate(
        seed=5, normalisation=dict.fromkeys(("a", "b", "c", "p0", "u0"), "linear")
    )
    other = artifact.save(surrogate, tmp_path / "other")
    blobs.put(f"artifacts/{other}", tmp_path / "other")
    loading, go_on = threading.Event(), threading.Event()

    class Slow(Blobs):
        """A store that hands out one artifact when it is told to."""

        def download(self, key, path):
            if other in key:
                loading.set()
                assert go_on.wait(60)
            super().download(key, path)

    store = Slow(deployment.settings.store_url)
    executor = InlineExecutor(lambda: load_engine(deployment.settings, store))
    prepared = []

    async def scenario():
        await executor.start()
        await executor.warm(deployment.digest)
        known = batch(deployment)
        before = await executor.run(known)
        waiting = asyncio.create_task(
            executor.run(
                batch(deployment, digest=other), lambda: prepared.append(other)
            )
        )
        await asyncio.to_thread(loading.wait, 60)
        meanwhile = await executor.run(known)
        assert not waiting.done()
        go_on.set()
        await waiting
        await executor.close()
        return before["x"].tobytes() == meanwhile["x"].tobytes()

    assert asyncio.run(scenario())
    assert prepared == [other]


def keys(client, pattern):
    return set(client.scan_iter(pattern))


@pytest.fixture
def two_workers(deployment):
    """Two rollout workers that live, and a connection to their broker."""
    for name in set(deployment.processes) - {"valkey"}:
        deployment.stop(name)
    for name in ("first", "second"):
        deployment.start(name, "worker", "--rollouts")
    with opened(deployment.settings) as (database, _):
        workers = Workers(database)
        wait_for(lambda: len(workers.living("rollouts")) >= 2, 60)
    client = redis.Redis.from_url(deployment.settings.redis_url)
    yield [deployment.processes[name] for name in ("first", "second")], client
    client.close()
    for name in ("first", "second"):
        deployment.stop(name)


def large(deployment, rows=3_000):
    """A batch that takes seconds: long enough to be met in the middle."""
    arrays = {"x0": random_states(rows), "times": np.linspace(0.01, 900.0, 101)}
    return batch(deployment, arrays=arrays, seconds=60)


def while_one_computes(workers, executor, client, batches, act):
    """Results of batches; ``act`` is called when the first worker computes one."""
    _, second = workers

    async def scenario():
        await executor.start()
        # Frozen it takes one message at most; else it may take all of them.
        second.send_signal(signal.SIGSTOP)
        running = [asyncio.create_task(executor.run(each)) for each in batches]
        leased = lambda: keys(client, "spnode:batch:*:lease")  # noqa: E731
        try:
            await asyncio.to_thread(wait_for, leased, 60)
            act()
        finally:
            second.send_signal(signal.SIGCONT)
        results = await asyncio.gather(*running)
        await executor.close()
        return results

    return asyncio.run(scenario())


def test_batches_of_a_killed_worker_are_computed_by_the_other(two_workers, deployment):
    workers, client = two_workers
    first, _ = workers
    executor = QueueExecutor(deployment.settings, resend_s=1.0)
    batches = [large(deployment, 30_000) for _ in range(2)]

    def kill():
        first.send_signal(signal.SIGKILL)
        first.wait()

    results = while_one_computes(workers, executor, client, batches, kill)
    assert [len(result["x"]) for result in results] == [30_000, 30_000]
    assert executor.counters()["resent"] >= 1
    assert keys(client, "spnode:batch:*") == set()


def test_batches_of_a_broker_that_was_wiped_are_sent_with_their_arrays(
    two_workers, deployment
):
    workers, client = two_workers
    executor = QueueExecutor(deployment.settings, resend_s=1.0)
    batches = [large(deployment) for _ in range(6)]
    results = while_one_computes(workers, executor, client, batches, client.flushall)
    assert [len(result["x"]) for result in results] == [3_000] * 6


def test_a_reply_that_cannot_be_read_ends_no_gateway_s_listening(
    two_workers, deployment, caplog
):
    _, client = two_workers
    executor = QueueExecutor(deployment.settings)
    client.rpush(executor._replies, b"no reply of ours")
    (result,) = run(executor, batch(deployment))
    assert len(result["x"]) == len(X0)
    (said,) = [each for each in caplog.records if "reply" in each.getMessage()]
    assert said.exc_info


def test_a_worker_that_is_told_to_stop_answers_what_it_computes(
    two_workers, deployment
):
    workers, client = two_workers
    first, _ = workers
    # So long that nothing is sent again: what is lost stays lost, and fails.
    executor = QueueExecutor(deployment.settings, resend_s=1000.0)
    batches = [large(deployment) for _ in range(6)]
    results = while_one_computes(workers, executor, client, batches, first.terminate)
    assert [len(result["x"]) for result in results] == [3_000] * 6
    assert first.wait(30) == 0
    assert executor.counters()["resent"] == 0
    assert keys(client, "spnode:batch:*") == set()


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("too little memory", code="out_of_memory"),
        InvalidInput("times", found="many", expected="fewer"),
        NotFound("blob", "artifacts/d"),
        Damaged("it is damaged"),
    ],
)
def test_errors_come_back_from_workers_as_they_were(error):
    found = error_of(json.loads(json.dumps(fields_of(error))))
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert getattr(found, "code", None) == getattr(error, "code", None)


def test_a_broker_that_is_full_is_named_to_whoever_waits():
    with deployed() as empty, redis.Redis.from_url(empty.settings.redis_url) as client:
        empty.digest = "0" * 64
        client.config_set("maxmemory", 1)
        (error,) = run(QueueExecutor(empty.settings), batch(empty, seconds=20))
    assert isinstance(error, Unavailable)
    assert error.message == "the queue takes nothing more: its memory is full"


def test_nobody_begins_a_batch_that_was_called_off():
    with deployed() as empty:
        empty.digest = "0" * 64
        client = redis.Redis.from_url(empty.settings.redis_url)
        executor = QueueExecutor(empty.settings)

        async def scenario():
            await executor.start()
            running = asyncio.create_task(executor.run(batch(empty)))
            payload = "spnode:batch:*"
            await asyncio.to_thread(wait_for, lambda: keys(client, payload), 20)
            running.cancel()
            await asyncio.to_thread(wait_for, lambda: not keys(client, payload), 20)
            await executor.close()

        asyncio.run(scenario())
        client.close()


class Doubling:
    """An engine that returns twice ``x0``, and counts."""

    runs = 0

    def run(self, operation, digest, arrays, variant, *, only_ready=False):
        self.runs += 1
        return {"x": 2 * arrays["x0"]}


@pytest.mark.parametrize("ahead_s", [3600.0, -3600.0])
def test_a_worker_whose_clock_is_wrong_computes_what_is_waited_for(
    monkeypatch, ahead_s
):
    true = time.time
    with deployed() as empty, redis.Redis.from_url(empty.settings.redis_url) as client:
        empty.digest = "0" * 64
        executor, engine = QueueExecutor(empty.settings), Doubling()

        def serve():
            sent = json.loads(client.blpop(["rollouts"], timeout=20)[1])
            assert sent["headers"]["expires"] is None
            (message,), _, _ = json.loads(base64.b64decode(sent["body"]))
            monkeypatch.setattr(time, "time", lambda: true() + ahead_s)
            assert serve_batch(message, engine, client, computing=threading.Lock())
            return message

        async def scenario():
            await executor.start()
            running = asyncio.create_task(executor.run(batch(empty, seconds=20)))
            await asyncio.to_thread(serve)
            answered = await running
            late = asyncio.create_task(executor.run(batch(empty, seconds=2.0)))
            is_sent = lambda: client.llen("rollouts")  # noqa: E731
            await asyncio.to_thread(wait_for, is_sent, 20)
            is_gone = lambda: not keys(client, "spnode:batch:*")  # noqa: E731
            await asyncio.to_thread(wait_for, is_gone, 20)
            await asyncio.to_thread(serve)
            with pytest.raises(DeadlinePassed):
                await late
            await executor.close()
            return answered

        answered = asyncio.run(scenario())
        np.testing.assert_array_equal(answered["x"], 2 * X0)
        assert engine.runs == 1, "nobody waited for the second one any more"
        assert keys(client, "spnode:batch:*") == set()


def test_a_gateway_before_workers_has_no_jax_and_little_memory(deployment):
    if "worker" not in deployment.processes:
        deployment.start("worker", "worker", "--rollouts")
    # Else it is asked for seconds whether it is ready, which takes memory.
    with opened(deployment.settings) as (database, _):
        living = functools.partial(Workers(database).living, "rollouts")
        wait_for(lambda: any(worker.is_warm for worker in living()), 200)
    gateway = deployment.start_gateway(executor="queue")
    asked = {"model": "mixed", "x0": X0.tolist(), "times": TIMES.tolist()}
    with gateway.client() as client:
        assert client.post("/v1/rollout", json=asked).status_code == 200
        rollouts = client.get("/health/ready").json()["rollouts"]
    assert (rollouts["batches"], rollouts["rows"], rollouts["resent"]) == (1, 20, 0)
    process = psutil.Process(deployment.processes["gateway"].pid)
    mapped = {each.path for each in process.memory_maps()}
    assert not [path for path in mapped if "jax" in path]
    # Of its own: how much of a library's file is in memory is the kernel's to choose.
    assert process.memory_full_info().uss < 120 * MIB
    deployment.stop("gateway")
