"""Where a batch of rollouts runs: a thread of this process, or rollout workers.

Both executors take the same batches and give the same bits. The inline one loads the
engine by name, so that nothing of the gateway imports JAX.
"""

import abc
import asyncio
import contextlib
import importlib
import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from services.blobs import Blobs
from services.rollouts.request import Arrays
from services.rollouts.standstill import Standstill
from services.rollouts.work import USUAL, Variant
from services.settings import Settings

_LOG = logging.getLogger(__name__)
T = TypeVar("T")

_IDLE_AGAIN_S = 0.2
# What is over sooner, and is alone, is computed on the event loop: the way to another
# thread and back takes 0.07 ms where both threads sleep.
_QUICK_S = 0.001
_QUICK_ROWS = 2
_QUICK_BYTES = 2048
"""Of times: with more it is not quick."""
_KINDS_KNOWN = 1000


@dataclass(frozen=True)
class Batch:
    """Rows that share a device call.

    Args:
        operation: ``rollout``, ``latent``, ``jvp`` or ``vjp``.
        digest: The artifact to run.
        arrays: ``x0`` and so on with an axis of rows, ``times``, ``control_times``.
        deadline: ``time.monotonic()`` after which nobody waits for it.
        variant: How they are computed.
        traceparent: Of the span that it is computed in.
        is_alone: Whether no other rows wait: nobody minds what is held up meanwhile.
    """

    operation: str
    digest: str
    arrays: Arrays
    deadline: float
    variant: Variant = USUAL
    traceparent: str | None = None
    is_alone: bool = False


class NotReady(Exception):
    """A batch needs a model or a program that is to be prepared first."""


class AbstractEngine(Protocol):
    """What computes batches: ``services.rollouts.engine.Engine``.

    Several threads may call ``run`` while another one calls the other methods.
    """

    batches_at_a_time: int
    """How many are worth computing at a time."""

    def run(
        self,
        operation: str,
        digest: str,
        arrays: Arrays,
        variant: Variant = USUAL,
        *,
        only_ready: bool = False,
    ) -> Arrays:
        """Compute a batch; NotReady where only what is ready was asked for."""
        ...

    def prepare(
        self, operation: str, digest: str, arrays: Arrays, variant: Variant = USUAL
    ) -> None:
        """Load and compile what a batch waits for."""
        ...

    def warming(self, digest: str) -> list[Callable[[], None]]:
        """Load a version; what compiles its usual shapes, step by step."""
        ...

    def idle(self) -> bool:
        """Do a bit of what makes later batches faster; whether there was any."""
        ...

    def pin(self, digests: frozenset[str]) -> None:
        """Keep these versions loaded, whatever memory they take."""
        ...

    def figures(self) -> dict[str, int]:
        """What was counted: programs compiled, models loaded and so on."""
        ...


class AbstractExecutor(abc.ABC):
    """Runs batches; every method is called from the event loop."""

    concurrency: int
    """How many batches may run at a time before rows are gathered instead."""
    beside_after_s: float = 0.0
    """How long batches have run before another one begins beside them."""

    @abc.abstractmethod
    async def start(self) -> None:
        """Start threads and connections."""

    @abc.abstractmethod
    async def run(
        self, batch: Batch, preparing: Callable[[], None] = lambda: None
    ) -> Arrays:
        """Compute a batch; where this is cancelled it need not begin any more.

        Args:
            batch: What to compute.
            preparing: Called when the batch waits for a model or a program to be
                prepared: others may run meanwhile.

        Returns:
            ``x``, and what the operation adds, with the batch's rows in their order.
        """

    @abc.abstractmethod
    async def warm(self, digest: str) -> None:
        """Make a version ready to run, where that is this process's business."""

    @abc.abstractmethod
    async def pin(self, digests: frozenset[str]) -> None:
        """Keep these versions loaded and no others, where that is its business."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Stop; batches that run are finished first where possible."""

    def expect(self, workers: int) -> None:  # noqa: B027
        """Keep so many workers busy, where others compute."""

    def counters(self) -> dict[str, int]:
        """What it has counted of its own, by name."""
        return {}


class InlineExecutor(AbstractExecutor):
    """Threads of this process: some compute, another one loads and compiles.

    A row or two that nobody else waits behind, and that took less than a millisecond
    the last time, are computed on the event loop itself. A batch that takes long, and
    is too small for all cores, leaves the others to the batches after it.

    Args:
        make_engine: Builds the engine; called in the thread that computes.
        standstill: Watches both; not watched where left out.
    """

    concurrency = 1
    # Shorter ones are better gathered: what the event loop does meanwhile costs more.
    beside_after_s = 0.005

    def __init__(
        self,
        make_engine: Callable[[], AbstractEngine],
        standstill: Standstill | None = None,
    ) -> None:
        self._make_engine = make_engine
        self._engine: AbstractEngine | None = None
        self._standstill = standstill or Standstill(math.inf)
        self._computing = [_Thread("rollouts", self._standstill)]
        self._preparing = _Thread("prepare", self._standstill, self._idle)
        self._warming = 0
        # Seconds that few rows took the last time, by all that they depend on.
        self._took: dict[tuple, float] = {}

    @property
    def engine(self) -> AbstractEngine:
        """The engine, once it is loaded."""
        assert self._engine is not None
        return self._engine

    async def start(self) -> None:
        """Start the threads and load the engine."""
        self._standstill.start()
        first = self._computing[0]
        first.start()
        self._engine = await first.call(self._make_engine)
        self.concurrency = self._engine.batches_at_a_time
        for number in range(1, self.concurrency):
            thread = _Thread(f"rollouts-{number}", self._standstill)
            thread.start()
            self._computing.append(thread)
        self._preparing.start()

    async def run(
        self, batch: Batch, preparing: Callable[[], None] = lambda: None
    ) -> Arrays:
        """Compute a batch in one thread, after the other one has prepared it."""
        engine = self.engine
        asked = (batch.operation, batch.digest, batch.arrays, batch.variant)
        try:
            if not batch.is_alone or len(batch.arrays["x0"]) > _QUICK_ROWS:
                return await self._compute(lambda: engine.run(*asked, only_ready=True))
            return await self._compute_few(asked)
        except NotReady:
            preparing()
        await self._preparing.call(lambda: engine.prepare(*asked))
        return await self._compute(lambda: engine.run(*asked))

    async def _compute(self, run: Callable[[], Arrays]) -> Arrays:
        """Call a function in the thread that has least to do."""
        return await min(self._computing, key=lambda thread: thread.given).call(run)

    async def _compute_few(self, asked: tuple[str, str, Arrays, Variant]) -> Arrays:
        """Compute what is alone, here where it has been quick so far."""
        operation, digest, arrays, variant = asked
        at = [arrays[name] for name in ("times", "control_times") if name in arrays]
        if sum(array.nbytes for array in at) > _QUICK_BYTES:
            return await self._compute(lambda: self.engine.run(*asked, only_ready=True))
        # A later time may be a million steps away.
        told = tuple(array.tobytes() for array in at)
        shapes = tuple((name, array.shape) for name, array in arrays.items())
        kind = (operation, digest, variant, told, shapes)

        def timed() -> Arrays:
            began = time.perf_counter()
            results = self.engine.run(*asked, only_ready=True)
            self._took[kind] = time.perf_counter() - began
            return results

        if self._took.get(kind, math.inf) > _QUICK_S or self._computes:
            if len(self._took) >= _KINDS_KNOWN:
                self._took.clear()
            return await self._compute(timed)
        with self._standstill:
            return timed()

    async def warm(self, digest: str) -> None:
        """Load and compile beside the batches that run, one step at a time.

        So a request waits for one step at most before what it needs is compiled.
        """
        self._warming += 1
        try:
            steps = await self._preparing.call(lambda: self.engine.warming(digest))
            for step in steps:
                await self._preparing.call(step)
        finally:
            self._warming -= 1

    async def pin(self, digests: frozenset[str]) -> None:
        """Keep versions loaded."""
        await self._preparing.call(lambda: self.engine.pin(digests))

    def counters(self) -> dict[str, int]:
        """What the engine counted."""
        return self._engine.figures() if self._engine else {}

    async def close(self) -> None:
        """End the threads after what they have been given."""
        for thread in (*self._computing, self._preparing):
            await thread.close()
        self._standstill.close()

    @property
    def _computes(self) -> bool:
        return any(thread.given for thread in self._computing)

    def _idle(self) -> bool:
        """Prepare a bit more, unless a batch waits for the processor."""
        if self._warming or self._computes:
            return False
        return self.engine.idle()


class _Thread:
    """Calls functions one after the other, for coroutines that wait.

    SimpleQueue and call_soon_threadsafe: 11 us there and back, against 25 us for
    run_in_executor.

    Args:
        name: Of the thread.
        standstill: Watches what it calls.
        idle: Called while nothing waits, until it returns False; then now and again.
    """

    def __init__(
        self,
        name: str,
        standstill: Standstill,
        idle: Callable[[], bool] | None = None,
    ) -> None:
        self._standstill, self._idle = standstill, idle
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        # Calls that have not ended; changed on the event loop alone.
        self.given = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def call(self, function: Callable[[], T]) -> T:
        """Call a function in the thread."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self.given += 1
        self._calls.put(_Call(function, loop, future))
        return await future

    def _settle(
        self,
        how: Callable[[asyncio.Future[Any], Any], None],
        future: asyncio.Future[Any],
        value: Any,
    ) -> None:
        self.given -= 1
        if not future.done():
            how(future, value)

    async def close(self) -> None:
        """End the thread after what it has been given."""
        self._calls.put(None)
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, 30)

    def _serve(self) -> None:
        while (call := self._next()) is not None:
            how, value = asyncio.Future.set_result, None
            try:
                if not call.future.cancelled():
                    with self._standstill:
                        value = call.function()
            except Exception as error:  # the boundary of the thread
                how, value = asyncio.Future.set_exception, error
            # A loop that is closed has nobody left who waits.
            if not call.loop.is_closed():
                call.loop.call_soon_threadsafe(self._settle, how, call.future, value)
            # Its arrays and its answer are nobody's here, until the next one comes.
            call = value = None

    def _next(self) -> "_Call | None":
        """The next call; what can be done meanwhile is done while none waits."""
        if self._idle is None:
            return self._calls.get()
        while True:
            while self._calls.empty() and self._has_idled():
                pass
            # What could not be done now may be possible later.
            with contextlib.suppress(queue.Empty):
                return self._calls.get(timeout=_IDLE_AGAIN_S)

    def _has_idled(self) -> bool:
        assert self._idle is not None
        try:
            with self._standstill:
                return self._idle()
        except Exception:  # the boundary of the thread
            _LOG.exception("a shape could not be prepared")
            return True


@dataclass(frozen=True)
class _Call:
    function: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


def make_executor(settings: Settings, blobs: Blobs) -> AbstractExecutor:
    """Return the executor that the settings name."""
    if settings.executor == "queue":
        remote = importlib.import_module("services.rollouts.remote")
        return remote.QueueExecutor(settings)
    standstill = Standstill(settings.rollout_stall_seconds)
    return InlineExecutor(lambda: load_engine(settings, blobs), standstill)


def load_engine(settings: Settings, blobs: Blobs) -> AbstractEngine:
    """Import the engine by name and build it."""
    # XLA tells of every program that it loads that the machine lacks features which
    # are no machine's: prefer-no-gather is a wish of its own.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    module = importlib.import_module("services.rollouts.engine")
    return module.Engine(settings, blobs)
