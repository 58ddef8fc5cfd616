import asyncio
import time

import numpy as np
import pytest

from services.errors import (
    DeadlinePassed,
    NotFound,
    Overloaded,
    WorkersDied,
)
from tests.services.held_executors import (
    Doubling,
    Stepping,
    batcher,
    rows_of,
    soon,
    started,
    work,
)


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
        late = await started(batches, work(2), deadline=time.monotonic() + 0.05)
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


def test_a_large_request_goes_in_several_batches_and_comes_back_in_order():
    async def scenario():
        executor = Doubling()
        values = np.arange(10_000.0)
        result = await batcher(executor, 256, 20_000).run(
            work(*values), deadline=soon()
        )
        assert rows_of(executor) == [256] * 39 + [16]
        np.testing.assert_array_equal(result["x"].ravel(), 2 * values)

    asyncio.run(scenario())


@pytest.mark.parametrize("times", [(1.0,), (2.0,)], ids=["gathered", "on its own"])
def test_a_row_waits_for_about_one_batch_of_a_large_request(times):
    async def scenario():
        executor = Stepping()
        batches = batcher(executor, 256, 100_000, 10**8)
        (large,) = await started(batches, work(*range(65_536)))
        await executor.step(10)
        (small,) = await started(batches, work(7, times=times))
        begun = len(executor.batches)
        await executor.step(2)
        assert (await small)["x"].item() == 14.0
        assert len(executor.batches) <= begun + 2
        assert not large.done()
        await executor.step(300)
        result = await large
        np.testing.assert_array_equal(result["x"].ravel(), 2.0 * np.arange(65_536))

    asyncio.run(scenario())


def test_rows_of_a_caller_that_left_do_not_compute_and_leave_the_count_at_once():
    async def scenario():
        executor = Stepping()
        batches = batcher(executor, 100)
        (large,) = await started(batches, work(*range(900)))
        (small,) = await started(batches, work(1, digest="e"))
        await executor.step(1)
        large.cancel()
        await asyncio.sleep(0)
        assert batches.snapshot()["queued_rows"] == 1
        await executor.step(1)
        await small
        assert rows_of(executor) == [100, 1]
        assert batches.snapshot()["queued_bytes"] == 0

    asyncio.run(scenario())


def test_a_batch_that_nobody_waits_for_is_called_off():
    async def scenario():
        executor = Doubling()
        executor.gate.clear()
        batches = batcher(executor)
        first, second = await started(batches, work(1), work(2))
        first.cancel()
        await asyncio.sleep(0.01)
        assert executor.cancelled == 1
        executor.gate.set()
        assert (await second)["x"].item() == 4.0
        assert batches.snapshot()["cancelled"] == 1

    asyncio.run(scenario())


def test_the_first_error_of_a_part_fails_the_request_once_and_drops_the_rest():
    async def scenario():
        executor = Doubling()
        executor.error = NotFound("blob", "artifacts/d")
        batches = batcher(executor, 100)
        values = np.arange(900.0)
        values[150] = -1
        (task,) = await started(batches, work(*values))
        with pytest.raises(NotFound):
            await task
        assert rows_of(executor) == [100, 100]
        assert batches.snapshot()["queued_rows"] == 0

    asyncio.run(scenario())


def test_a_failing_row_of_a_large_request_fails_that_request_alone():
    async def scenario():
        executor = Stepping()
        executor.error = RuntimeError("out of memory")
        batches = batcher(executor, 10)
        bad, good = await started(
            batches, work(*range(10), -1, *range(10)), work(*range(15))
        )
        await executor.step(20)
        with pytest.raises(RuntimeError):
            await bad
        np.testing.assert_array_equal((await good)["x"].ravel(), 2.0 * np.arange(15))

    asyncio.run(scenario())


def test_where_workers_die_of_a_request_the_others_of_its_batch_are_computed():
    async def scenario():
        executor = Stepping()
        executor.error = WorkersDied("/", found="three", expected="fewer rows")
        batches = batcher(executor, 10)
        bad, good = await started(batches, work(-1.0, 2.0), work(3.0))
        await executor.step(20)
        with pytest.raises(WorkersDied):
            await bad
        assert (await good)["x"].item() == 6.0

    asyncio.run(scenario())


def test_a_part_that_could_not_be_delivered_alone_is_computed_again(monkeypatch):
    async def scenario():
        executor = Stepping()
        batches = batcher(executor, 10)
        fails = iter([False, True])

        def empty(shape, dtype):
            if next(fails, False):
                raise MemoryError
            return np.full(shape, np.nan, dtype)

        monkeypatch.setattr("services.rollouts.gathering.np.empty", empty)
        # A batch has rows of both; neither fits into it whole.
        asked = [work(*range(12)), work(*range(100, 112))]
        tasks = await started(batches, *asked)
        await executor.step(20)
        for task, each in zip(tasks, asked, strict=True):
            found = (await task)["x"].ravel()
            np.testing.assert_array_equal(found, 2 * each.rows["x0"].ravel())
        assert batches.snapshot()["queued_rows"] == 0
        assert next(fails, None) is None

    asyncio.run(scenario())


def test_an_expired_large_request_stops_computing():
    async def scenario():
        executor = Stepping()
        batches = batcher(executor, 100)
        (late,) = await started(
            batches, work(*range(900)), deadline=time.monotonic() + 0.05
        )
        await executor.step(2)
        with pytest.raises(DeadlinePassed):
            await late
        await executor.step(5)
        assert len(executor.batches) == 3

    asyncio.run(scenario())


def test_too_many_waiting_bytes_are_refused_answers_counted():
    async def scenario():
        executor = Doubling()
        executor.gate.clear()
        # One row: 8 bytes in, 8 bytes of times, 8 bytes out.
        batches = batcher(executor, queued_bytes_limit=50)
        tasks = await started(batches, work(1), work(2))
        assert batches.snapshot()["queued_bytes"] == 48
        with pytest.raises(Overloaded, match="48 bytes"):
            await batches.run(work(3), deadline=soon())
        assert batches.snapshot()["refused"] == 1
        executor.gate.set()
        await asyncio.gather(*tasks)
        assert batches.snapshot()["queued_bytes"] == 0

    asyncio.run(scenario())


def test_the_snapshot_says_what_was_done():
    async def scenario():
        executor = Doubling()
        executor.gate.clear()
        batches = batcher(executor)
        tasks = await started(batches, work(0), work(1), work(2, 3))
        executor.gate.set()
        await asyncio.gather(*tasks)
        found = batches.snapshot()
        assert (found["requests"], found["batches"], found["rows"]) == (3, 2, 4)
        assert found["rows_per_batch"] == 2.0
        assert 0 < found["longest_wait_seconds"] <= found["waited_seconds"]

    asyncio.run(scenario())


def test_how_fast_rows_leave_is_known_of_requests_one_after_the_other():
    async def scenario():
        executor = Doubling()
        batches = batcher(executor, queued_rows_limit=10)
        for _ in range(20):
            executor.gate.clear()
            (task,) = await started(batches, work(1))
            executor.gate.set()
            await task
        # Each took 10 ms and more, and nothing else was computed.
        assert batches.admission.rate.seconds_for(200, 0) > 1.5
        assert batches.admission.rows == 0

    asyncio.run(scenario())
