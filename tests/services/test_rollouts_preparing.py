import asyncio

import pytest

from services.errors import NotFound
from tests.services.held_executors import (
    Doubling,
    batcher,
    rows_of,
    soon,
    started,
    work,
)


class Preparing(Doubling):
    """Prepares the model ``new`` until it is told that this is done."""

    def __init__(self):
        super().__init__()
        self.prepared = asyncio.Event()

    async def run(self, batch, preparing=lambda: None):
        if batch.digest == "new" and not self.prepared.is_set():
            preparing()
            await self.prepared.wait()
        return await super().run(batch)


def test_a_model_that_is_prepared_holds_up_its_own_rows_alone():
    async def scenario():
        executor = Preparing()
        batches = batcher(executor)
        waiting = await started(batches, *(work(i, digest="new") for i in range(3)))
        for value in (5.0, 6.0):
            result = await batches.run(work(value), deadline=soon())
            assert result["x"].item() == 2 * value
            await asyncio.sleep(0.001)
        snapshot = batches.snapshot()
        assert (snapshot["running_batches"], snapshot["preparing_batches"]) == (0, 1)
        executor.prepared.set()
        found = [(await each)["x"].item() for each in waiting]
        assert found == [0.0, 2.0, 4.0]
        # What came meanwhile was gathered, and counted out.
        assert rows_of(executor) == [1, 1, 1, 2]
        assert batches.snapshot()["preparing_batches"] == 0

    asyncio.run(scenario())


def test_a_model_that_cannot_be_prepared_fails_its_own_rows_alone():
    async def scenario():
        executor = Preparing()
        executor.error = NotFound("artifact", "new")
        batches = batcher(executor)
        (waiting,) = await started(batches, work(-1, digest="new"))
        executor.prepared.set()
        with pytest.raises(NotFound):
            await waiting
        assert (await batches.run(work(5), deadline=soon()))["x"].item() == 10.0

    asyncio.run(scenario())
