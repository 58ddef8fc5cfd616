"""The threads of the inline executor, with an engine that a test holds back."""

import asyncio
import sys
import threading
import time

import numpy as np
import pytest

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


def compute_at_once(executor, asked):
    compute = executor.at_once(asked)
    assert compute is not None
    compute()


async def quick_for(digest):
    """An engine and its executor, which has computed one row of an artifact."""
    engine = Engine()
    engine.ready.add(digest)
    executor = InlineExecutor(lambda: engine)
    await executor.start()
    await executor.run(batch(digest))
    return engine, executor


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
            asked = batch("d", **asked)
            if executor.at_once(asked) is None:
                await executor.run(asked)
            else:
                compute_at_once(executor, asked)
            return engine.computed_in[-1]

        # What is not ready is prepared, and what it takes is not known at first.
        assert await computed_in() == there
        assert await computed_in() == there
        assert await computed_in() == here
        assert await computed_in(rows=3) == there
        assert await computed_in(rows=3) == there, "more than a few rows"
        # Of another number of rows it is not known what it takes.
        assert await computed_in(rows=2) == there
        assert await computed_in(rows=2) == here
        # To another time there may be a million steps more.
        assert await computed_in(end=1e6) == there
        # What has turned out slow holds up the event loop once.
        engine.takes_s = 0.6
        assert await computed_in() == here
        assert await computed_in() == there
        engine.takes_s = 0.0
        assert await computed_in() == there
        assert await computed_in() == here
        await executor.close()

    asyncio.run(scenario())


def test_nothing_is_computed_on_the_event_loop_while_the_thread_computes(monkeypatch):
    monkeypatch.setattr("services.rollouts.executor._QUICK_S", 0.5)

    async def scenario():
        engine, executor = await quick_for("d")
        engine.may_compute.clear()
        held = asyncio.create_task(executor.run(batch("d", rows=3)))
        await asyncio.sleep(0.1)
        # Whoever waited for it has gone, and it is computed all the same.
        held.cancel()
        await asyncio.sleep(0)
        assert executor.at_once(batch("d")) is None
        alone = asyncio.create_task(executor.run(batch("d")))
        await asyncio.sleep(0.1)
        engine.may_compute.set()
        await alone
        assert engine.computed_in[-2:] == ["rollouts", "rollouts"]
        compute_at_once(executor, batch("d"))
        assert engine.computed_in[-1] == threading.current_thread().name
        await executor.close()

    asyncio.run(scenario())


def test_what_has_been_let_go_of_is_not_computed_on_the_event_loop(monkeypatch):
    monkeypatch.setattr("services.rollouts.executor._QUICK_S", 0.5)

    async def scenario():
        engine, executor = await quick_for("d")
        compute_at_once(executor, batch("d"))
        engine.ready.clear()
        with pytest.raises(NotReady):
            compute_at_once(executor, batch("d"))
        await executor.close()

    asyncio.run(scenario())


def test_a_thread_that_computes_soon_gets_the_interpreter():
    async def scenario():
        before = sys.getswitchinterval()
        executor = InlineExecutor(Engine)
        await executor.start()
        assert sys.getswitchinterval() == pytest.approx(0.0005)
        await executor.close()
        assert sys.getswitchinterval() == before

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
