"""The threads of the inline executor, with an engine that a test holds back."""

import asyncio
import threading
import time

import numpy as np

from services.rollouts.executor import Batch, InlineExecutor, NotReady


class Engine:
    """Is ready for what it has prepared; each step of warming waits to be let go."""

    def __init__(self, batches_at_a_time=1):
        self.batches_at_a_time = batches_at_a_time
        self.ready = set()
        self.steps = threading.Semaphore(0)
        self.done = []
        self.idled = 0
        self.may_compute = threading.Event()
        self.may_compute.set()
        self.computed_in = []
        self.takes_s = 0.0

    def run(self, operation, digest, arrays, variant, *, only_ready=False):
        if only_ready and digest not in self.ready:
            raise NotReady
        assert self.may_compute.wait(30)
        time.sleep(self.takes_s)
        self.computed_in.append(threading.current_thread().name)
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


def batch(digest, rows=1, end=1.0, **more):
    arrays = {"x0": np.zeros((rows, 1)), "times": np.array([end])}
    return Batch("rollout", digest, arrays, time.monotonic() + 60, **more)


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


def test_a_row_that_is_alone_and_quick_is_computed_on_the_event_loop(monkeypatch):
    monkeypatch.setattr("services.rollouts.executor._QUICK_S", 0.5)
    here, there = threading.current_thread().name, "rollouts"

    async def scenario():
        engine = Engine()
        executor = InlineExecutor(lambda: engine)
        await executor.start()

        async def computed_in(**asked):
            await executor.run(batch("d", **asked))
            return engine.computed_in[-1]

        # What is not ready is prepared, and what it takes is not known at first.
        assert await computed_in(is_alone=True) == there
        assert await computed_in(is_alone=True) == there
        assert await computed_in(is_alone=True) == here
        assert await computed_in() == there, "others wait behind it"
        assert await computed_in(is_alone=True, rows=3) == there
        # Of another number of rows it is not known what it takes.
        assert await computed_in(is_alone=True, rows=2) == there
        assert await computed_in(is_alone=True, rows=2) == here
        # To another time there may be a million steps more.
        assert await computed_in(is_alone=True, end=1e6) == there
        # What has turned out slow holds up the event loop once.
        engine.takes_s = 0.6
        assert await computed_in(is_alone=True) == here
        assert await computed_in(is_alone=True) == there
        engine.takes_s = 0.0
        assert await computed_in(is_alone=True) == there
        assert await computed_in(is_alone=True) == here
        await executor.close()

    asyncio.run(scenario())


def test_nothing_is_computed_on_the_event_loop_while_the_thread_computes(monkeypatch):
    monkeypatch.setattr("services.rollouts.executor._QUICK_S", 0.5)

    async def scenario():
        engine = Engine()
        engine.ready.add("d")
        executor = InlineExecutor(lambda: engine)
        await executor.start()
        await executor.run(batch("d", is_alone=True))
        engine.may_compute.clear()
        held = asyncio.create_task(executor.run(batch("d", rows=3)))
        await asyncio.sleep(0.1)
        # Whoever waited for it has gone, and it is computed all the same.
        held.cancel()
        await asyncio.sleep(0)
        alone = asyncio.create_task(executor.run(batch("d", is_alone=True)))
        await asyncio.sleep(0.1)
        engine.may_compute.set()
        await alone
        assert engine.computed_in[-2:] == ["rollouts", "rollouts"]
        await executor.run(batch("d", is_alone=True))
        assert engine.computed_in[-1] == threading.current_thread().name
        await executor.close()

    asyncio.run(scenario())


def test_batches_that_take_long_are_computed_side_by_side():
    async def scenario():
        engine = Engine(batches_at_a_time=2)
        engine.ready.add("d")
        executor = InlineExecutor(lambda: engine)
        await executor.start()
        assert executor.concurrency == 2
        engine.may_compute.clear()
        both = [asyncio.create_task(executor.run(batch("d", rows=3))) for _ in "ab"]
        await asyncio.sleep(0.1)
        engine.may_compute.set()
        await asyncio.gather(*both)
        assert sorted(engine.computed_in) == ["rollouts", "rollouts-1"]
        await executor.close()

    asyncio.run(scenario())
