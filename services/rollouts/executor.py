"""Where a batch of rollouts runs: a thread of this process, or rollout workers.

Both executors take the same batches and give the same bits. The inline one loads the
engine by name, so that nothing of the gateway imports JAX.
"""

import abc
import importlib
import logging
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from services.blobs import Blobs
from services.logs import keep_xla_quiet
from services.rollouts.request import Arrays
from services.rollouts.standstill import Standstill
from services.rollouts.threads import CallingThread
from services.rollouts.work import USUAL, Variant
from services.settings import Settings

_LOG = logging.getLogger(__name__)
T = TypeVar("T")

# What is over sooner, and is alone, is computed on the event loop: the way to another
# thread and back takes 0.07 ms where both threads sleep.
_QUICK_S = 0.001
_QUICK_ROWS = 2
_QUICK_BYTES = 2048
"""Of times: with more it is not quick."""
_KINDS_KNOWN = 1000
# For so long a thread that is to compute waits for the event loop to let go of the
# interpreter. In Python's 5 ms the loop reads all that has come and is idle before the
# batch begins; with less than this the two interrupt each other too often.
_SWITCH_S = 0.0005


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
    """

    operation: str
    digest: str
    arrays: Arrays
    deadline: float
    variant: Variant = USUAL
    traceparent: str | None = None

    @property
    def asked(self) -> tuple[str, str, Arrays, Variant]:
        """What engines are asked for."""
        return self.operation, self.digest, self.arrays, self.variant


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
    at_once_rows: int = 0
    """Of how many rows it may compute a batch at once."""
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

    def at_once(self, batch: Batch) -> Callable[[], Arrays] | None:
        """What computes a batch that nobody waits behind before it returns.

        None where that would take long. It raises what ``run`` does, or NotReady.
        """
        return None

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
    at_once_rows = _QUICK_ROWS
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
        self._computing = [CallingThread("rollouts", self._standstill)]
        self._preparing = CallingThread("prepare", self._standstill, self._idle)
        self._warming = 0
        self._switch_s = sys.getswitchinterval()
        # Seconds that few rows took the last time, by all that they depend on.
        self._took: dict[tuple, float] = {}

    @property
    def engine(self) -> AbstractEngine:
        """The engine, once it is loaded."""
        assert self._engine is not None
        return self._engine

    async def start(self) -> None:
        """Start the threads and load the engine."""
        self._switch_s = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)
        self._standstill.start()
        first = self._computing[0]
        first.start()
        self._engine = await first.call(self._make_engine)
        self.concurrency = self._engine.batches_at_a_time
        for number in range(1, self.concurrency):
            thread = CallingThread(f"rollouts-{number}", self._standstill)
            thread.start()
            self._computing.append(thread)
        self._preparing.start()

    async def run(
        self, batch: Batch, preparing: Callable[[], None] = lambda: None
    ) -> Arrays:
        """Compute a batch in one thread, after the other one has prepared it."""
        engine, kind = self.engine, _kind_of_few(batch)
        try:
            return await self._compute(lambda: self._ready(batch, kind))
        except NotReady:
            preparing()
        await self._preparing.call(lambda: engine.prepare(*batch.asked))
        return await self._compute(lambda: engine.run(*batch.asked))

    def at_once(self, batch: Batch) -> Callable[[], Arrays] | None:
        """What computes a row or two here, if their kind was quick the last time."""
        kind = _kind_of_few(batch)
        if kind is None or self._took.get(kind, math.inf) > _QUICK_S or self._computes:
            return None

        def compute() -> Arrays:
            with self._standstill:
                return self._ready(batch, kind)

        return compute

    async def _compute(self, run: Callable[[], Arrays]) -> Arrays:
        """Call a function in the thread that has least to do."""
        return await min(self._computing, key=lambda thread: thread.given).call(run)

    def _ready(self, batch: Batch, kind: tuple | None) -> Arrays:
        """Compute what needs no preparing, and note what it took where it is of few."""
        began = time.perf_counter()
        results = self.engine.run(*batch.asked, only_ready=True)
        if kind is not None:
            if len(self._took) >= _KINDS_KNOWN:
                self._took.clear()
            self._took[kind] = time.perf_counter() - began
        return results

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
        sys.setswitchinterval(self._switch_s)

    @property
    def _computes(self) -> bool:
        return any(thread.given for thread in self._computing)

    def _idle(self) -> bool:
        """Prepare a bit more, unless a batch waits for the processor."""
        if self._warming or self._computes:
            return False
        return self.engine.idle()


def _kind_of_few(batch: Batch) -> tuple | None:
    """All that the time of few rows depends on; None where there is more of it."""
    arrays = batch.arrays
    at = [arrays[name] for name in ("times", "control_times") if name in arrays]
    is_large = sum(array.nbytes for array in at) > _QUICK_BYTES
    if is_large or len(arrays["x0"]) > _QUICK_ROWS:
        return None
    # A later time may be a million steps away.
    told = tuple(array.tobytes() for array in at)
    shapes = tuple((name, array.shape) for name, array in arrays.items())
    return (batch.operation, batch.digest, batch.variant, told, shapes)


def make_executor(settings: Settings, blobs: Blobs) -> AbstractExecutor:
    """Return the executor that the settings name."""
    if settings.executor == "queue":
        remote = importlib.import_module("services.rollouts.remote")
        return remote.QueueExecutor(settings)
    standstill = Standstill(settings.rollout_stall_seconds)
    return InlineExecutor(lambda: load_engine(settings, blobs), standstill)


def load_engine(settings: Settings, blobs: Blobs) -> AbstractEngine:
    """Import the engine by name and build it."""
    keep_xla_quiet()
    module = importlib.import_module("services.rollouts.engine")
    return module.Engine(settings, blobs)
