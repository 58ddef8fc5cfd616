"""Which requests are in the next batch: half the shortest, half the oldest."""

import asyncio
import gc
import weakref

import numpy as np

from tests.services.held_executors import Stepping, batcher, rows_of, started, work


def test_half_of_a_batch_is_for_the_shortest_and_half_for_the_oldest():
    async def scenario():
        executor = Stepping()
        batches = batcher(executor, 100)
        first, second, third = await started(
            batches, work(*range(300)), work(*range(300, 360)), work(-1, -2)
        )
        await executor.step(1)
        shared = executor.batches[1].arrays["x0"].ravel()
        assert sorted(shared[shared < 0]) == [-2.0, -1.0]
        assert (shared >= 300).sum() == 48
        assert ((shared >= 0) & (shared < 300)).sum() == 50
        await executor.step(5)
        # None is half empty.
        assert rows_of(executor) == [100, 100, 100, 62]
        for task, expected in (
            (first, np.arange(300)),
            (second, np.arange(300, 360)),
            (third, np.array([-1, -2])),
        ):
            result = await task
            np.testing.assert_array_equal(result["x"].ravel(), 2.0 * expected)

    asyncio.run(scenario())


def test_requests_of_one_size_end_one_after_another():
    async def scenario():
        executor = Stepping()
        batches = batcher(executor, 100)
        tasks = await started(batches, *[work(*range(200)) for _ in range(4)])
        done = []
        for _ in range(8):
            await executor.step(1)
            done.append([task.done() for task in tasks].count(True))
        assert done == [0, 1, 1, 2, 2, 3, 3, 4]

    asyncio.run(scenario())


def test_the_oldest_has_half_of_what_is_computed_however_many_short_ones_come():
    async def scenario():
        executor = Stepping()
        batches = batcher(executor, 10, 10_000)
        (large,) = await started(batches, work(*range(60)))
        small = []
        for _ in range(11):
            small += await started(batches, *[work(-1, -1) for _ in range(10)])
            await executor.step(1)
        assert large.done()
        assert not all(task.done() for task in small)
        await executor.step(40)
        await asyncio.gather(*small)

    asyncio.run(scenario())


def test_what_is_done_is_not_kept_while_others_wait():
    async def scenario():
        executor = Stepping()
        batches = batcher(executor, 4, 100_000)
        longer = work(*range(50))
        gone = weakref.ref(longer)
        (first,) = await started(batches, longer)
        del longer
        tasks = []
        for _ in range(60):
            tasks += await started(batches, work(-1, -2, -3), work(-4, -5, -6))
            await executor.step(1)
            executor.batches.clear()
        (group,) = batches._groups.values()
        assert len(group._shortest) <= 2 * len(group) + 64
        assert len(await first) == 1
        assert not tasks[-1].done()
        del first
        gc.collect()
        assert gone() is None
        await executor.step(700)
        await asyncio.gather(*tasks)
        assert not batches._groups

    asyncio.run(scenario())


def test_a_request_alone_is_one_part():
    async def scenario():
        executor = Stepping()
        batches = batcher(executor, 100)
        (task,) = await started(batches, work(*range(80)))
        ((part,),) = batches._running.values()
        assert (part.start, part.stop) == (0, 80)
        await executor.step(1)
        await task

    asyncio.run(scenario())


def test_a_group_whose_requests_came_first_goes_before_one_that_asks_again_and_again():
    async def scenario():
        executor = Stepping()
        batches = batcher(executor, 10)
        burst = await started(batches, *[work(n) for n in range(50)])
        for _ in range(5):
            await started(batches, work(1, digest="e"))
            await executor.step(1)
        assert [batch.digest for batch in executor.batches[:5]] == ["d"] * 5
        await executor.step(10)
        await asyncio.gather(*burst)

    asyncio.run(scenario())
