"""Executors that a test can hold back, and requests for them."""

import asyncio
import time

import numpy as np

from services.rollouts.batching import Batcher
from services.rollouts.executor import AbstractExecutor
from services.rollouts.work import Work


class Doubling(AbstractExecutor):
    """Returns twice ``x0``, keeps the batches, and can be held back."""

    def __init__(self, concurrency=1):
        self.concurrency = concurrency
        self.batches = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error = None
        self.cancelled = 0

    async def start(self):
        """Nothing to start."""

    async def run(self, batch, preparing=lambda: None):
        self.batches.append(batch)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None and (batch.arrays["x0"] < 0).any():
            raise self.error
        return {"x": 2 * batch.arrays["x0"][:, None]}

    async def warm(self, digest):
        """Nothing to warm."""

    async def pin(self, digests):
        """Nothing to keep."""

    async def close(self):
        """Nothing to close."""


def work(*values, times=(1.0,), digest="d"):
    rows = {"x0": np.array(values, float).reshape(-1, 1)}
    return Work("rollout", digest, rows, {"times": np.array(times)}, len(values))


def batcher(
    executor, max_batch_rows=100, queued_rows_limit=1000, queued_bytes_limit=10**6
):
    return Batcher(
        executor,
        max_batch_rows=max_batch_rows,
        queued_rows_limit=queued_rows_limit,
        queued_bytes_limit=queued_bytes_limit,
    )


def soon():
    return time.monotonic() + 10


async def started(batches, *works, deadline=None):
    """Tasks that run works, each of which comes in a turn of the loop of its own."""
    tasks = []
    for each in works:
        running = batches.run(each, deadline=deadline or soon())
        tasks.append(asyncio.create_task(running))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    return tasks


def rows_of(executor):
    return [len(batch.arrays["x0"]) for batch in executor.batches]


class Stepping(Doubling):
    """Lets one batch through at each ``step``."""

    def __init__(self):
        super().__init__()
        self.turns = asyncio.Semaphore(0)

    async def run(self, batch, preparing=lambda: None):
        result = await super().run(batch)
        await self.turns.acquire()
        return result

    async def step(self, times=1):
        """Let batches end, and whoever waited for them go on."""
        for _ in range(times):
            self.turns.release()
            await asyncio.sleep(0.001)
