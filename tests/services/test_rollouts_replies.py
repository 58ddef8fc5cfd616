"""Replies that wait in a gateway's list, and what is lost meanwhile."""

import asyncio
import threading

import pytest
import redis

from services.rollouts.frames import pack
from services.rollouts.remote import QueueExecutor
from tests.api.deployment import deployed, wait_for
from tests.services.test_rollouts_executors import X0, batch, keys


@pytest.fixture
def empty():
    """A deployment without workers, whose broker others write to."""
    with deployed() as deployment:
        deployment.digest = "0" * 64
        client = redis.Redis.from_url(deployment.settings.redis_url)
        yield deployment, client
        client.close()


def foreign(count):
    """Replies to batches that nobody waits for any more."""
    return [pack({"id": f"batch_{number}"}, {}) for number in range(count)]


def test_what_is_lost_is_sent_again_however_many_replies_come(empty):
    deployment, client = empty
    executor = QueueExecutor(deployment.settings, resend_s=0.5)
    ended = threading.Event()

    def never_without_a_reply():
        while not ended.is_set():
            if client.llen(executor._replies) < 500:
                client.rpush(executor._replies, *foreign(1000))

    busy = threading.Thread(target=never_without_a_reply)

    async def scenario():
        await executor.start()
        running = asyncio.create_task(executor.run(batch(deployment)))
        busy.start()
        try:
            await asyncio.to_thread(wait_for, lambda: executor.resent, 20)
        finally:
            ended.set()
            running.cancel()
            await asyncio.to_thread(busy.join)
            await executor.close()

    asyncio.run(scenario())


def test_what_a_reply_that_waits_answers_is_not_sent_again(empty):
    deployment, client = empty
    executor = QueueExecutor(deployment.settings, resend_s=1.0)

    async def scenario():
        await executor.start()
        running = asyncio.create_task(executor.run(batch(deployment)))
        payload = "spnode:batch:*"
        await asyncio.to_thread(wait_for, lambda: keys(client, payload), 20)
        (key,) = (each.decode() for each in keys(client, payload))
        client.set(f"{key}:lease", b"1")
        # A worker computes for longer than what is lost waits.
        await asyncio.sleep(1.5)
        own = pack({"id": key.rpartition(":")[2]}, {"x": X0})
        with client.pipeline() as pipeline:
            pipeline.rpush(executor._replies, *foreign(3000), own)
            pipeline.delete(key, f"{key}:lease")
            pipeline.execute()
        result = await running
        await executor.close()
        return result

    assert asyncio.run(scenario())["x"].shape == X0.shape
    assert executor.resent == 0
