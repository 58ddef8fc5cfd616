"""What is computed at once, and what while other requests are answered."""

import asyncio

from services.rollouts.executor import NotReady
from tests.services.held_executors import (
    Doubling,
    Stepping,
    batcher,
    rows_of,
    soon,
    started,
    work,
)


def test_only_what_nobody_waits_behind_is_asked_for_at_once():
    class Quick(Doubling):
        at_once_rows = 2

        def __init__(self):
            super().__init__()
            self.at = []

        def at_once(self, batch):
            self.at.append(batch.arrays["x0"].ravel().tolist())
            if len(self.at) == 1:
                return None
            return lambda: {"x": 2 * batch.arrays["x0"]}

    async def scenario():
        executor = Quick()
        batches = batcher(executor, max_batch_rows=2)
        await batches.run(work(1), deadline=soon())
        assert (executor.at, rows_of(executor)) == ([[1.0]], [1]), "it was not quick"
        # These come in one turn of the loop.
        works = (work(2), work(3), work(4))
        await asyncio.gather(*(batches.run(each, deadline=soon()) for each in works))
        assert executor.at == [[1.0], [4.0]], "the last one has nobody behind it"
        assert rows_of(executor) == [1, 2]
        found = batches.snapshot()
        assert (found["batches"], found["rows"], found["queued_rows"]) == (3, 4, 0)
        assert found["queued_bytes"] == 0

    asyncio.run(scenario())


class Failing(Doubling):
    """Computes at once, and fails where a row is negative."""

    at_once_rows = 2

    def __init__(self, error):
        super().__init__()
        self.error = error

    def at_once(self, batch):
        def compute():
            if (batch.arrays["x0"] < 0).any():
                raise self.error
            return {"x": 2 * batch.arrays["x0"]}

        return compute


def test_an_error_at_once_reaches_who_asked_and_nobody_else():
    async def scenario():
        batches = batcher(Failing(RuntimeError("broken")))
        bad, good = await asyncio.gather(
            *(batches.run(work(value), deadline=soon()) for value in (-1, 1)),
            return_exceptions=True,
        )
        assert str(bad) == "broken"
        assert good["x"] == 2
        found = batches.snapshot()
        assert (found["queued_rows"], found["queued_bytes"]) == (0, 0)

    asyncio.run(scenario())


def test_what_has_been_let_go_of_is_not_computed_at_once():
    async def scenario():
        executor = Failing(NotReady())
        batches = batcher(executor)
        executor.gate.clear()
        (task,) = await started(batches, work(-1))
        assert rows_of(executor) == [1], "it is prepared in the usual way"
        executor.error = None
        executor.gate.set()
        assert (await task)["x"] == -2

    asyncio.run(scenario())


def test_closing_waits_for_what_begins_in_the_next_turn():
    async def scenario():
        batches = batcher(Doubling())
        running = asyncio.create_task(batches.run(work(1), deadline=soon()))
        await asyncio.sleep(0)
        await batches.close()
        assert batches.snapshot()["batches"] == 1
        assert (await running)["x"] == 2

    asyncio.run(scenario())


def test_half_of_many_requests_are_computed_while_the_others_are_answered():
    async def scenario():
        executor = Stepping()
        executor.beside_after_s = 60.0
        batches = batcher(executor)
        tasks = await started(batches, work(0))
        tasks += await started(batches, *(work(i) for i in range(1, 32)))
        await executor.step(3)
        await asyncio.gather(*tasks)
        # 16 of 31 and the one that was answered; of 15 and these 16 again half.
        assert rows_of(executor) == [1, 16, 15]
        # Few are not worth two batches.
        executor.batches.clear()
        tasks = await started(batches, work(0))
        tasks += await started(batches, *(work(i) for i in range(1, 9)))
        await executor.step(2)
        await asyncio.gather(*tasks)
        assert rows_of(executor) == [1, 8]

    asyncio.run(scenario())


def test_the_oldest_has_its_half_where_half_of_the_requests_are_computed():
    async def scenario():
        executor = Stepping()
        executor.beside_after_s = 60.0
        batches = batcher(executor, max_batch_rows=50)
        tasks = await started(batches, work(*range(10)))
        tasks += await started(batches, work(*range(500)))
        tasks += await started(batches, *(work(i) for i in range(40)))
        await executor.step()
        # 21 of 42 requests: 11 short ones and the oldest, which fills the batch.
        assert rows_of(executor) == [10, 50]
        assert [sum(task.done() for task in tasks)] == [1]
        await executor.step()
        assert sum(task.done() for task in tasks) == 12
        for task in tasks:
            task.cancel()

    asyncio.run(scenario())


def test_what_takes_long_is_computed_together():
    async def scenario():
        executor = Stepping()
        batches = batcher(executor)
        tasks = await started(batches, work(0))
        tasks += await started(batches, *(work(i) for i in range(1, 32)))
        await executor.step(2)
        await asyncio.gather(*tasks)
        assert rows_of(executor) == [1, 31]

    asyncio.run(scenario())
