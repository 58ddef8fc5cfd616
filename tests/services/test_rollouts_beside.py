"""Batches that begin while others are computed."""

import asyncio
import time

from tests.services.held_executors import (
    Doubling,
    Stepping,
    batcher,
    rows_of,
    started,
    work,
)


def test_another_batch_begins_beside_one_that_takes_long():
    async def scenario():
        executor = Doubling(concurrency=2)
        executor.beside_after_s = 1.0
        executor.gate.clear()
        batches = batcher(executor)
        began = time.monotonic()
        tasks = await started(batches, work(1), work(2), work(3))
        # What comes while it is young is gathered.
        assert rows_of(executor) == [1]
        while rows_of(executor) != [1, 2]:
            await asyncio.sleep(0.01)
        assert time.monotonic() - began >= 1.0
        # As many as there are threads: a third one waits until one has ended.
        tasks += await started(batches, work(4))
        await asyncio.sleep(1.2)
        assert rows_of(executor) == [1, 2]
        executor.gate.set()
        await asyncio.gather(*tasks)
        assert rows_of(executor) == [1, 2, 1]

    asyncio.run(scenario())


def test_nothing_begins_beside_what_ended_in_time():
    async def scenario():
        executor = Stepping()
        executor.concurrency, executor.beside_after_s = 2, 60.0
        batches = batcher(executor)
        tasks = await started(batches, work(1), work(2), work(3))
        await executor.step()
        assert rows_of(executor) == [1, 2]
        await executor.step()
        await asyncio.gather(*tasks)

    asyncio.run(scenario())
