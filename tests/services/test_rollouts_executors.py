import asyncio
import signal
import time

import numpy as np
import pytest
import redis

from services.blobs import Blobs
from services.errors import DeadlinePassed, NotFound
from services.rollouts.executor import Batch, InlineExecutor, load_engine
from services.rollouts.remote import QueueExecutor
from tests.api.deployment import deployed, opened, wait_for
from tests.core.models import random_states

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
        "deadline": time.time() + seconds,
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
    weights = np.ones((len(X0), len(TIMES), 3))
    arrays = {"x0": X0, "times": TIMES, "cotangents": weights}
    (result,) = run(make(), batch(deployment, operation="vjp", arrays=arrays))
    assert result["gradients.x0"].shape == X0.shape
    assert np.isfinite(result["gradients.x0"]).all()


def test_without_a_worker_the_deadline_ends_the_wait():
    with deployed() as empty:
        empty.digest = "0" * 64
        began = time.monotonic()
        (error,) = run(QueueExecutor(empty.settings), batch(empty, seconds=1.0))
        assert isinstance(error, DeadlinePassed)
        assert time.monotonic() - began < 10


def test_a_batch_whose_worker_is_killed_is_computed_by_another(deployment):
    if "worker" in deployment.processes:
        deployment.stop("worker")
    first = deployment.start("first", "worker", "--rollouts")
    client = redis.Redis.from_url(deployment.settings.redis_url)
    executor = QueueExecutor(deployment.settings, resend_s=1.0)
    # Many rows and times: enough to be killed in the middle.
    arrays = {
        "x0": random_states(30_000),
        "times": np.linspace(0.01, 900.0, 101),
    }
    sent = batch(deployment, arrays=arrays, seconds=120)

    async def scenario():
        await executor.start()
        running = asyncio.create_task(executor.run(sent))
        taken = "spnode:batch:*:lease"
        await asyncio.to_thread(
            wait_for, lambda: next(client.scan_iter(taken), None), 60
        )
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert not running.done()
        deployment.start("second", "worker", "--rollouts")
        result = await running
        await executor.close()
        return result

    result = asyncio.run(scenario())
    assert result["x"].shape == (30_000, 101, 3)
    assert executor.resent >= 1
    assert next(client.scan_iter("spnode:batch:*"), None) is None
    client.close()
