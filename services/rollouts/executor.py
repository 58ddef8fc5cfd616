"""Where a batch of rollouts runs: a thread of this process, or rollout workers.

Both executors take the same batches and give the same bits. The inline one loads the
engine by name, so that nothing of the gateway imports JAX.
"""

import abc
import asyncio
import importlib
import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from services.blobs import Blobs
from services.rollouts.canonical import USUAL, Variant
from services.rollouts.request import Arrays
from services.settings import Settings

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """Rows that share a device call.

    Args:
        operation: ``rollout``, ``latent``, ``jvp`` or ``vjp``.
        digest: The artifact to run.
        arrays: ``x0`` and so on with an axis of rows, ``times``, ``control_times``.
        deadline: ``time.time()`` after which nobody waits for it.
        variant: How they are computed.
    """

    operation: str
    digest: str
    arrays: Arrays
    deadline: float
    variant: Variant = USUAL


class AbstractEngine(Protocol):
    """What computes batches: ``services.rollouts.engine.Engine``."""

    def run(
        self, operation: str, digest: str, arrays: Arrays, variant: Variant = USUAL
    ) -> Arrays:
        """Compute a batch."""
        ...

    def warm(self, digest: str) -> None:
        """Load a version and compile its usual shapes."""
        ...

    def idle(self) -> bool:
        """Do a bit of what makes later batches faster; whether there was any."""
        ...


class AbstractExecutor(abc.ABC):
    """Runs batches; every method is called from the event loop."""

    concurrency: int
    """How many batches may run at a time before rows are gathered instead."""

    @abc.abstractmethod
    async def start(self) -> None:
        """Start threads and connections."""

    @abc.abstractmethod
    async def run(self, batch: Batch) -> Arrays:
        """Compute a batch; where this is cancelled it need not begin any more.

        Returns:
            ``x``, and what the operation adds, with the batch's rows in their order.
        """

    @abc.abstractmethod
    async def warm(self, digest: str) -> None:
        """Make a version ready to run, where that is this process's business."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Stop; batches that run are finished first where possible."""

    def counters(self) -> dict[str, int]:
        """What it has counted of its own, by name."""
        return {}


class InlineExecutor(AbstractExecutor):
    """One thread of this process that owns the engine.

    Args:
        make_engine: Builds the engine; called in the thread.
    """

    concurrency = 1

    def __init__(self, make_engine: Callable[[], AbstractEngine]) -> None:
        self._make_engine = make_engine
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._serve, name="rollouts", daemon=True
        )
        self._engine: AbstractEngine | None = None

    @property
    def engine(self) -> AbstractEngine | None:
        """The engine, once it is loaded."""
        return self._engine

    async def start(self) -> None:
        """Start the thread and load the engine in it."""
        self._thread.start()
        await self._call(lambda engine: None)

    async def run(self, batch: Batch) -> Arrays:
        """Compute a batch in the thread."""
        return await self._call(
            lambda engine: engine.run(
                batch.operation, batch.digest, batch.arrays, batch.variant
            )
        )

    async def warm(self, digest: str) -> None:
        """Load and compile in the thread, between batches."""
        await self._call(lambda engine: engine.warm(digest))

    async def close(self) -> None:
        """End the thread after what it has been given."""
        self._calls.put(None)
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, 30)

    async def _call(self, function: Callable[[AbstractEngine], Any]) -> Any:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        # SimpleQueue and call_soon_threadsafe: 11 us there and back, against 25 us
        # for run_in_executor.
        self._calls.put(_Call(function, loop, future))
        return await future

    def _serve(self) -> None:
        while (call := self._next()) is not None:
            if call.future.cancelled():
                continue
            try:
                if self._engine is None:
                    self._engine = self._make_engine()
                result = call.function(self._engine)
            except Exception as error:  # the boundary of the thread
                call.answer(_set_exception, error)
            else:
                call.answer(_set_result, result)

    def _next(self) -> "_Call | None":
        """The next call; what can be done meanwhile is done while none waits."""
        while self._engine is not None and self._calls.empty():
            if not self._idle(self._engine):
                break
        return self._calls.get()

    def _idle(self, engine: AbstractEngine) -> bool:
        try:
            return engine.idle()
        except Exception:  # the boundary of the thread
            _LOG.exception("a shape could not be prepared")
            return True


@dataclass(frozen=True)
class _Call:
    function: Callable[[AbstractEngine], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]

    def answer(
        self, how: Callable[[asyncio.Future[Any], Any], None], value: Any
    ) -> None:
        # A loop that is closed has nobody left who waits.
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(how, self.future, value)


def _set_result(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _set_exception(future: asyncio.Future[Any], error: Any) -> None:
    if not future.done():
        future.set_exception(error)


def make_executor(settings: Settings, blobs: Blobs) -> AbstractExecutor:
    """Return the executor that the settings name."""
    if settings.executor == "queue":
        remote = importlib.import_module("services.rollouts.remote")
        return remote.QueueExecutor(settings)
    return InlineExecutor(lambda: load_engine(settings, blobs))


def load_engine(settings: Settings, blobs: Blobs) -> AbstractEngine:
    """Import the engine by name and build it."""
    module = importlib.import_module("services.rollouts.engine")
    return module.Engine(settings, blobs)
