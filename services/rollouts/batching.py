"""Adaptive batching: run when the executor is idle, gather while it is busy.

::

    run(work) --queue by key--> [group] --idle slot--> executor.run(batch) --> rows
                 ^                 |
                 +--- rows left ---+   a large request goes batch by batch

What comes while nothing runs begins in the next turn of the event loop; a row or two
that are alone are computed there. After a short batch the next one takes half of the
requests at hand, so that the event loop reads and answers the others meanwhile. Nothing
waits for a fixed time: measured, a wait of 2 ms costs 2.6 ms alone and gains nothing
under load. **Requests take turns**: the group runs first whose oldest request
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
import math
import time
from collections import deque
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from services.errors import DeadlinePassed, Overloaded, ServiceError, WorkersDied
from services.metrics import BATCH_ROWS, BATCH_WAIT, batch_seconds
from services.rollouts.admission import Admission
from services.rollouts.counters import BatcherCounters
from services.rollouts.deadlines import Deadlines
from services.rollouts.executor import AbstractExecutor, Batch, NotReady
from services.rollouts.gathering import (
    Ended,
    deliver,
    gathered,
    looks_plain,
    span_of,
)
from services.rollouts.groups import Group, Part, Request
from services.rollouts.request import Arrays
from services.rollouts.statistics import Counted, Statistics
from services.rollouts.work import RowResults, Work

_LOG = logging.getLogger(__name__)
# So many requests are not worth two batches.
_FEW = 8


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
        self.counters = BatcherCounters()
        self.statistics = Statistics()
        self.admission = Admission(queued_rows_limit, queued_bytes_limit)
        self._groups: dict[tuple, Group] = {}
        self._order = itertools.count()
        self._deadlines = Deadlines()
        self._running: dict[asyncio.Task[Ended], list[Part]] = {}
        self._began: dict[asyncio.Task[Ended], float] = {}
        self._later: asyncio.TimerHandle | None = None
        self._soon: asyncio.Handle | None = None
        # Groups that wait for a model or a program; the rows of others run meanwhile.
        self._preparing: dict[asyncio.Task[Ended], tuple] = {}

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
            request = self._admitted(work, deadline)
            try:
                self._enqueue(request)
                if self._running:
                    self._dispatch()
                else:
                    self._dispatch_soon()
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

    def check_open(self) -> None:
        """Raise ``Overloaded`` before a request is read, where too much waits."""
        try:
            self.admission.check_open()
        except Overloaded:
            self.counters.refused += 1
            raise

    async def close(self) -> None:
        """Wait for the batches that run."""
        while self._soon is not None or self._running:
            if self._running:
                await asyncio.wait(self._running)
            else:
                await asyncio.sleep(0)

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

    def _admitted(self, work: Work, deadline: float) -> Request:
        """A request that is counted in, or refused."""
        size = work.expected_bytes
        try:
            self.admission.admit(work.count, size)
        except Overloaded:
            self.counters.refused += 1
            raise
        self.counters.requests += 1
        return Request(
            work,
            work.key,
            deadline,
            asyncio.get_running_loop().create_future(),
            size,
            next(self._order),
            deque([(0, work.count)]),
            work.count,
        )

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

    def _dispatch_soon(self) -> None:
        """Begin in the loop's next turn, with all requests that come in this one."""
        if self._soon is None:
            loop = asyncio.get_running_loop()
            # Of no request's own context: a batch serves several, and more follow it.
            self._soon = loop.call_soon(self._begin, context=contextvars.Context())

    def _begin(self) -> None:
        self._soon = None
        self._dispatch()

    def _dispatch(self, answered: int = 0) -> None:
        """Begin the batches that there is room for.

        Args:
            answered: How many requests are about to get their answers.
        """
        while key := self._next_group():
            group, most = self._groups[key], math.inf
            if answered:
                # Half of all: while these are computed the event loop is as busy.
                most = max(_FEW, (len(group) + answered + 1) // 2)
            parts = group.take(self.max_batch_rows, requests=most)
            self._had_its_turn(key)
            if not parts:
                continue
            for part in parts:
                self._begun(part.request)
            rows = sum(part.rows for part in parts)
            self.counters.batches += 1
            self.counters.rows += rows
            is_alone = rows == self.admission.rows
            if (
                is_alone
                and rows <= self.executor.at_once_rows
                and self._ran(parts, rows)
            ):
                continue
            context = contextvars.Context()
            running = self._run(key, parts, rows)
            task = asyncio.get_running_loop().create_task(running, context=context)
            self._running[task] = parts
            self._began[task] = time.monotonic()
            finished = functools.partial(self._finished, key)
            task.add_done_callback(finished, context=context)

    def _next_group(self) -> tuple | None:
        """The group whose turn it is, if the executor has room."""
        if not self._groups or not self._has_room():
            return None
        waiting: Collection[tuple] = self._groups
        if self._preparing:
            waiting = self._groups.keys() - self._preparing.values()
        if len(waiting) < 2:
            return next(iter(waiting), None)
        return min(waiting, key=lambda key: self._groups[key].turn)

    def _has_room(self) -> bool:
        """Whether a batch may begin; where it may soon, that is looked at then."""
        running: Collection[asyncio.Task[Ended]] = self._running
        if self._preparing:
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

    def _finished(self, key: tuple, task: "asyncio.Task[Ended]") -> None:
        self._preparing.pop(task, None)
        del self._running[task], self._began[task]
        answered = 0
        if not task.cancelled():
            self._count_later(task)
            answered = self._answered(task)
        # What came while a large request was computed goes before its next batch.
        self._had_its_turn(key)
        self._dispatch(answered)

    def _answered(self, task: "asyncio.Task[Ended]") -> int:
        """How many requests get their answers of a batch, where it was a short one."""
        if task.exception() is not None:
            return 0
        ended = task.result()
        if ended.took is None or ended.took >= self.executor.beside_after_s:
            return 0
        return sum(not part.request.missing for part in ended.delivered)

    def _count_later(self, task: "asyncio.Task[Ended]") -> None:
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

    def _ran(self, parts: list[Part], rows: int) -> bool:
        """Compute a batch that is alone in this turn of the loop, if it is quick."""
        ended = Ended(parts[0].request.work, rows)
        try:
            batch = gathered(parts, None)
            compute = self.executor.at_once(batch)
            if compute is None:
                return False
            with span_of(parts, ended):
                results = compute()
            self._deliver(parts, batch, results, ended)
        except NotReady:
            return False
        except Exception as error:  # the boundary between batches
            self._failed(parts, ended.delivered, error)
        self._leave_queue(ended)
        asyncio.get_running_loop().call_soon(self._count, ended)
        return True

    async def _run(self, key: tuple, parts: list[Part], rows: int) -> Ended:
        """Compute a batch, and give each request its rows of what comes of it."""
        ended = Ended(parts[0].request.work, rows)
        try:
            with span_of(parts, ended) as traceparent:
                batch = gathered(parts, traceparent)
                results = await self.executor.run(batch, lambda: self._set_aside(key))
            self._deliver(parts, batch, results, ended)
        except Exception as error:  # the boundary between requests that share a batch
            self._failed(parts, ended.delivered, error)
        self._leave_queue(ended)
        return ended

    def _deliver(
        self, parts: list[Part], batch: Batch, results: Arrays, ended: Ended
    ) -> None:
        """Give each request its rows."""
        ended.took = time.monotonic() - ended.began
        plain = looks_plain(ended.work, batch, results)
        start = 0
        for part in parts:
            if not part.request.future.done():
                deliver(part, results, start, plain=plain)
                ended.delivered.append(part)
            start += part.rows

    def _leave_queue(self, ended: Ended) -> None:
        """Count out what was computed, before its requests go on with their bytes."""
        self.admission.computed(
            sum(part.rows for part in ended.delivered),
            sum(part.size_bytes for part in ended.delivered),
        )

    def _count(self, ended: Ended) -> None:
        """Count a batch, when its requests have their answers."""
        if ended.took is None:
            return
        self.statistics.of(ended.work.digest).batch(ended.rows, ended.took)
        BATCH_ROWS.observe(ended.rows)
        batch_seconds(ended.work.operation).observe(ended.took)

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
