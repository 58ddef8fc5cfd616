import asyncio
import time

import numpy as np
import pytest

from services.errors import DeadlinePassed, NotFound, Overloaded
from services.rollouts.batching import Batcher
from services.rollouts.canonical import Work
from services.rollouts.executor import AbstractExecutor


class Doubling(AbstractExecutor):
    """Returns twice ``x0``, keeps the batches, and can be held back."""

    def __init__(self, concurrency=1):
        self.concurrency = concurrency
        self.batches = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error = None

    async def start(self):
        """Nothing to start."""

    async def run(self, batch):
        self.batches.append(batch)
        await self.gate.wait()
        if self.error is not None and (batch.arrays["x0"] < 0).any():
            raise self.error
        return {"x": 2 * batch.arrays["x0"][:, None]}

    async def warm(self, digest):
        """Nothing to warm."""

    async def close(self):
        """Nothing to close."""


def work(*values, times=(1.0,), digest="d"):
    rows = {"x0": np.array(values, float).reshape(-1, 1)}
    return Work("rollout", digest, rows, {"times": np.array(times)}, len(values))


def batcher(executor, max_batch_rows=100, queued_rows_limit=1000):
    return Batcher(
        executor, max_batch_rows=max_batch_rows, queued_rows_limit=queued_rows_limit
    )


def soon():
    return time.time() + 10


async def started(batches, *works, deadline=None):
    tasks = [
        asyncio.create_task(batches.run(each, deadline=deadline or soon()))
        for each in works
    ]
    await asyncio.sleep(0.01)
    return tasks


def test_rows_gather_only_while_the_executor_is_busy():
    async def scenario():
        executor = Doubling()
        batches = batcher(executor)
        executor.gate.clear()
        tasks = await started(batches, work(1), work(2), work(3, 4))
        assert [len(batch.arrays["x0"]) for batch in executor.batches] == [1]
        executor.gate.set()
        results = await asyncio.gather(*tasks)
        assert [len(batch.arrays["x0"]) for batch in executor.batches] == [1, 3]
        assert [result["x"].ravel().tolist() for result in results] == [
            [2.0],
            [4.0],
            [6.0, 8.0],
        ]

    asyncio.run(scenario())


def test_other_times_and_other_models_never_share_a_batch():
    async def scenario():
        executor = Doubling()
        batches = batcher(executor)
        executor.gate.clear()
        tasks = await started(
            batches, work(0), work(1), work(2, times=(2.0,)), work(3, digest="e")
        )
        executor.gate.set()
        await asyncio.gather(*tasks)
        assert len(executor.batches) == 4

    asyncio.run(scenario())


def test_a_full_batch_leaves_the_rest_for_the_next():
    async def scenario():
        executor = Doubling()
        batches = batcher(executor, max_batch_rows=3)
        executor.gate.clear()
        tasks = await started(batches, *[work(i) for i in range(6)])
        executor.gate.set()
        await asyncio.gather(*tasks)
        assert [len(batch.arrays["x0"]) for batch in executor.batches] == [1, 3, 2]

    asyncio.run(scenario())


def test_a_caller_that_left_is_not_computed():
    async def scenario():
        executor = Doubling()
        batches = batcher(executor)
        executor.gate.clear()
        first, second, third = await started(batches, work(1), work(2), work(3))
        second.cancel()
        await asyncio.sleep(0)
        executor.gate.set()
        await asyncio.gather(first, third)
        assert executor.batches[1].arrays["x0"].ravel().tolist() == [3.0]

    asyncio.run(scenario())


def test_an_expired_request_is_dropped_before_it_computes():
    async def scenario():
        executor = Doubling()
        batches = batcher(executor)
        executor.gate.clear()
        first = await started(batches, work(1))
        late = await started(batches, work(2), deadline=time.time() + 0.05)
        with pytest.raises(DeadlinePassed):
            await late[0]
        executor.gate.set()
        await first[0]
        await asyncio.sleep(0.01)
        assert len(executor.batches) == 1

    asyncio.run(scenario())


def test_too_many_waiting_rows_are_refused_with_a_time_to_come_back():
    async def scenario():
        executor = Doubling()
        batches = batcher(executor, queued_rows_limit=3)
        executor.gate.clear()
        tasks = await started(batches, work(1, 2), work(3))
        with pytest.raises(Overloaded) as caught:
            await batches.run(work(4), deadline=soon())
        assert caught.value.retry_after_s > 0
        executor.gate.set()
        await asyncio.gather(*tasks)
        assert (await batches.run(work(4), deadline=soon()))["x"].item() == 8.0

    asyncio.run(scenario())


def test_one_failing_request_does_not_fail_its_neighbours():
    async def scenario():
        executor = Doubling()
        executor.error = RuntimeError("out of memory")
        batches = batcher(executor)
        executor.gate.clear()
        tasks = await started(batches, work(0), work(1), work(-2), work(3))
        executor.gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[2], RuntimeError)
        assert [results[i]["x"].item() for i in (0, 1, 3)] == [0.0, 2.0, 6.0]

    asyncio.run(scenario())


def test_an_error_of_the_model_is_every_callers():
    async def scenario():
        executor = Doubling()
        executor.error = NotFound("blob", "artifacts/d")
        batches = batcher(executor)
        executor.gate.clear()
        tasks = await started(batches, work(0), work(-1), work(2))
        executor.gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[1], NotFound)
        assert isinstance(results[2], NotFound)

    asyncio.run(scenario())
