"""Adaptive batching: run at once when the executor is idle, gather while it is busy.

::

    run(work) --queue by key--> [group] --idle slot--> executor.run(batch) --> rows
                 ^                 |
                 +--- rows left ---+   a large request goes batch by batch

Nothing waits for a fixed time: measured, a wait of 2 ms costs 2.6 ms alone and gains
nothing under load. **Requests take turns**: the group runs first whose oldest request
has waited longest, since it came or the group last ran, and within a group short
requests go before long ones (``groups``): a row that comes while a large request is
computed waits for about one batch. Everything here happens on the event loop, so no
lock is needed.
"""

import asyncio
import contextvars
import functools
import itertools
import logging
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

from services.errors import DeadlinePassed, Overloaded, ServiceError, WorkersDied
from services.metrics import BATCH_ROWS, BATCH_SECONDS, BATCH_WAIT
from services.rollouts.admission import Admission
from services.rollouts.deadlines import Deadlines
from services.rollouts.executor import AbstractExecutor
from services.rollouts.gathering import deliver, gathered, looks_plain
from services.rollouts.groups import Group, Part, Request
from services.rollouts.statistics import Counted, Statistics
from services.rollouts.work import RowResults, Work
from services.traces import shared_span

_LOG = logging.getLogger(__name__)


@dataclass
class Counters:
    """What a batcher has done since it began."""

    requests: int = 0
    batches: int = 0
    rows: int = 0
    """Rows that went into batches."""
    expired: int = 0
    cancelled: int = 0
    refused: int = 0
    waited_seconds: float = 0.0
    """Sum over requests of the time from coming to the first batch."""
    longest_wait_seconds: float = 0.0


@dataclass
class _Ended:
    """What came of a batch.

    Args:
        work: The first of its requests.
        rows: How many it had.
        took: Seconds that it was computed; None where it failed.
        delivered: What requests have got of it.
    """

    work: Work
    rows: int
    took: float | None = None
    delivered: list[Part] = field(default_factory=list)


class Batcher:
    """Gathers the rows of many requests into batches for one executor.

    Args:
        executor: What runs the batches.
        max_batch_rows: Rows at which a batch is full; larger requests take several.
        queued_rows_limit: Rows that may wait or run before new ones are refused.
        queued_bytes_limit: Bytes of inputs and expected answers, likewise.
    """

    def __init__(
        self,
        executor: AbstractExecutor,
        *,
        max_batch_rows: int,
        queued_rows_limit: int,
        queued_bytes_limit: int,
    ) -> None:
        self.executor = executor
        self.max_batch_rows = max_batch_rows
        self.counters = Counters()
        self.statistics = Statistics()
        self.admission = Admission(queued_rows_limit, queued_bytes_limit)
        self._groups: dict[tuple, Group] = {}
        self._order = itertools.count()
        self._deadlines = Deadlines()
        self._running: dict[asyncio.Task[_Ended], list[Part]] = {}
        self._began: dict[asyncio.Task[_Ended], float] = {}
        self._later: asyncio.TimerHandle | None = None
        # Groups that wait for a model or a program; the rows of others run meanwhile.
        self._preparing: dict[asyncio.Task[_Ended], tuple] = {}

    async def run(self, work: Work, *, deadline: float) -> RowResults:
        """Compute a request's rows, with others' where these fit.

        Args:
            work: The request.
            deadline: ``time.monotonic()`` after which nobody waits for the answer.

        Raises:
            Overloaded: Too many rows or bytes wait already.
            DeadlinePassed: The deadline came before the answer.
        """
        with Counted(self.statistics.of(work.digest), work.count):
            return await self._run_counted(work, deadline)

    def check_open(self) -> None:
        """Raise ``Overloaded`` before a request is read, where too much waits."""
        try:
            self.admission.check_open()
        except Overloaded:
            self.counters.refused += 1
            raise

    async def close(self) -> None:
        """Wait for the batches that run."""
        while self._running:
            await asyncio.wait(self._running)

    def snapshot(self) -> dict[str, Any]:
        """What waits now and what was done so far, for whoever looks after it."""
        done = self.counters
        return {
            "queued_rows": self.admission.rows,
            "queued_bytes": self.admission.size_bytes,
            "running_batches": len(self._running) - len(self._preparing),
            "preparing_batches": len(self._preparing),
            **asdict(done),
            "rows_per_batch": done.rows / max(done.batches, 1),
            **self.executor.counters(),
        }

    async def _run_counted(self, work: Work, deadline: float) -> RowResults:
        size = work.expected_bytes
        try:
            self.admission.admit(work.count, size)
        except Overloaded:
            self.counters.refused += 1
            raise
        self.counters.requests += 1
        request = Request(
            work,
            work.key,
            deadline,
            asyncio.get_running_loop().create_future(),
            size,
            next(self._order),
            deque([(0, work.count)]),
            work.count,
        )
        try:
            self._enqueue(request)
            self._dispatch()
            self._deadlines.add(request.future, deadline)
            return await request.future
        except DeadlinePassed:
            self.counters.expired += 1
            raise
        except asyncio.CancelledError:
            self.counters.cancelled += 1
            raise
        finally:
            self._deadlines.remove(request.future)
            self._leave(request)

    def _enqueue(self, request: Request) -> None:
        if request.key not in self._groups:
            self._groups[request.key] = Group(next(self._order))
        self._groups[request.key].add(request)

    def _dequeue(self, request: Request) -> None:
        if group := self._groups.get(request.key):
            group.remove(request)
            if not group:
                del self._groups[request.key]

    def _leave(self, request: Request) -> None:
        """Nobody waits for a request any more: neither do its rows."""
        request.future.cancel()
        if request.todo:
            self._dequeue(request)
            request.todo.clear()
        self.admission.leave(request.missing, request.size_bytes)
        if not request.missing:
            return
        for task, parts in self._running.items():
            if all(part.request.future.done() for part in parts):
                task.cancel()

    def _dispatch(self) -> None:
        while key := self._next_group():
            parts = self._groups[key].take(self.max_batch_rows)
            self._had_its_turn(key)
            if not parts:
                continue
            for part in parts:
                self._begun(part.request)
            # Of no request's own context: it serves several, and more follow it.
            context = contextvars.Context()
            running = self._run(key, parts)
            task = asyncio.get_running_loop().create_task(running, context=context)
            self._running[task] = parts
            self._began[task] = time.monotonic()
            finished = functools.partial(self._finished, key)
            task.add_done_callback(finished, context=context)

    def _next_group(self) -> tuple | None:
        """The group whose turn it is, if the executor has room."""
        waiting = self._groups.keys() - self._preparing.values()
        if not waiting or not self._has_room():
            return None
        return min(waiting, key=lambda key: self._groups[key].turn)

    def _has_room(self) -> bool:
        """Whether a batch may begin; where it may soon, that is looked at then."""
        running = self._running.keys() - self._preparing.keys()
        if len(running) >= self.executor.concurrency:
            return False
        after_s = self.executor.beside_after_s
        if not running or not after_s:
            return True
        left_s = max(self._began[task] for task in running) + after_s - time.monotonic()
        if left_s > 0 and self._later is None:
            loop = asyncio.get_running_loop()
            self._later = loop.call_later(left_s, self._look_again)
        return left_s <= 0

    def _look_again(self) -> None:
        self._later = None
        self._dispatch()

    def _had_its_turn(self, key: tuple) -> None:
        """A group goes behind the others, or where no rows are left, away."""
        if group := self._groups.get(key):
            group.had_its_turn(next(self._order))
        else:
            self._groups.pop(key, None)

    def _begun(self, request: Request) -> None:
        if request.since is None:
            return
        waited = time.monotonic() - request.since
        request.since = None
        self.statistics.of(request.work.digest).waited.add(waited)
        BATCH_WAIT.observe(waited)
        self.counters.waited_seconds += waited
        longest = max(self.counters.longest_wait_seconds, waited)
        self.counters.longest_wait_seconds = longest

    def _finished(self, key: tuple, task: "asyncio.Task[_Ended]") -> None:
        self._preparing.pop(task, None)
        del self._running[task], self._began[task]
        if not task.cancelled():
            self._count_later(task)
        # What came while a large request was computed goes before its next batch.
        self._had_its_turn(key)
        self._dispatch()

    def _count_later(self, task: "asyncio.Task[_Ended]") -> None:
        """Count a batch when those who waited for it have gone on."""
        if error := task.exception():
            _LOG.error("a batch could not be given back", exc_info=error)
        else:
            asyncio.get_running_loop().call_soon(self._count, task.result())

    def _set_aside(self, key: tuple) -> None:
        """A batch waits for what is prepared: it takes no room, and its group waits."""
        task = asyncio.current_task()
        assert task is not None
        self._preparing[task] = key
        self._dispatch()

    async def _run(self, key: tuple, parts: list[Part]) -> "_Ended":
        """Compute a batch, and give each request its rows of what comes of it."""
        rows = sum(part.rows for part in parts)
        self.counters.batches += 1
        self.counters.rows += rows
        began, work = time.monotonic(), parts[0].request.work
        ended = _Ended(work, rows)
        try:
            attributes = {
                "spnode.operation": work.operation,
                "spnode.digest": work.digest,
                "spnode.rows": rows,
            }
            callers = (part.request.traceparent for part in parts)
            with shared_span("batch", callers, attributes) as traceparent:
                batch = gathered(parts, traceparent, self.admission.rows == rows)
                results = await self.executor.run(batch, lambda: self._set_aside(key))
            ended.took = time.monotonic() - began
            plain = looks_plain(work, batch, results)
            start = 0
            for part in parts:
                if not part.request.future.done():
                    deliver(part, results, start, plain=plain)
                    ended.delivered.append(part)
                start += part.rows
        except Exception as error:  # the boundary between requests that share a batch
            self._failed(parts, ended.delivered, error)
        # Before those requests go on: their bytes leave with them.
        self.admission.computed(
            sum(part.rows for part in ended.delivered),
            sum(part.size_bytes for part in ended.delivered),
        )
        return ended

    def _count(self, ended: "_Ended") -> None:
        """Count a batch, when its requests have their answers."""
        if ended.took is None:
            return
        self.statistics.of(ended.work.digest).batch(ended.rows, ended.took)
        BATCH_ROWS.observe(ended.rows)
        BATCH_SECONDS.labels(ended.work.operation).observe(ended.took)

    def _failed(
        self, parts: list[Part], delivered: list[Part], error: Exception
    ) -> None:
        """Give each request its own try: one must not fail its neighbours."""
        members = {part.request for part in parts}
        is_own = isinstance(error, ServiceError) and not isinstance(error, WorkersDied)
        shared = len(members) > 1 and not is_own
        for request in members:
            mine = [p for p in parts if p.request is request and p not in delivered]
            if request.future.done() or not mine:
                continue
            if request.todo:
                self._dequeue(request)
            if not shared:
                request.todo.clear()
                request.future.set_exception(error)
                continue
            request.todo.extendleft((part.start, part.stop) for part in mine)
            request.separate()
            self._enqueue(request)
