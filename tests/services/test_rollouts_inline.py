"""The two threads of the inline executor, with an engine that a test holds back."""

import asyncio
import threading
import time

import numpy as np

from services.rollouts.executor import Batch, InlineExecutor, NotReady


class Engine:
    """Is ready for what it has prepared; each step of warming waits to be let go."""

    def __init__(self):
        self.ready = set()
        self.steps = threading.Semaphore(0)
        self.done = []
        self.idled = 0
        self.may_compute = threading.Event()
        self.may_compute.set()

    def run(self, operation, digest, arrays, variant, *, only_ready=False):
        if only_ready and digest not in self.ready:
            raise NotReady
        assert self.may_compute.wait(30)
        self.done.append(digest)
        return {"x": arrays["x0"]}

    def prepare(self, operation, digest, arrays, variant):
        self.ready.add(digest)

    def warming(self, digest):
        return [lambda: self.steps.acquire() and self.done.append("step")] * 5

    def idle(self):
        self.idled += 1
        return False

    def pin(self, digests):
        """Nothing to keep."""

    def figures(self):
        return {}


def batch(digest):
    return Batch("rollout", digest, {"x0": np.zeros((1, 1))}, time.monotonic() + 60)


def test_a_batch_waits_for_one_step_of_a_version_that_is_warmed():
    async def scenario():
        engine = Engine()
        executor = InlineExecutor(lambda: engine)
        await executor.start()
        warming = asyncio.create_task(executor.warm("warmed"))
        await asyncio.sleep(0.1)
        idled = engine.idled
        waiting = asyncio.create_task(executor.run(batch("asked")))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        engine.steps.release()
        await asyncio.wait_for(waiting, 30)
        assert engine.done == ["step", "asked"]
        assert engine.idled == idled, "nothing is tried before a version is warm"
        for _ in range(4):
            engine.steps.release()
        await warming
        assert engine.done == ["step", "asked"] + 4 * ["step"]
        await executor.close()

    asyncio.run(scenario())


def test_what_is_done_when_idle_goes_on_after_a_batch():
    async def scenario():
        engine = Engine()
        executor = InlineExecutor(lambda: engine)
        await executor.start()
        engine.ready.add("d")
        engine.may_compute.clear()
        running = asyncio.create_task(executor.run(batch("d")))
        await asyncio.sleep(0.1)
        before = engine.idled
        await asyncio.sleep(0.6)
        assert engine.idled == before
        engine.may_compute.set()
        await running
        await asyncio.sleep(0.6)
        assert engine.idled > before
        await executor.close()

    asyncio.run(scenario())
