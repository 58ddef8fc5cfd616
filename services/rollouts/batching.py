"""Adaptive batching: run at once when the executor is idle, gather while it is busy.

::

    run(work) --queue by key--> [group] --idle slot--> executor.run(batch) --> rows

Nothing waits for a fixed time: measured, a wait of 2 ms costs 2.6 ms alone and gains
nothing under load. The oldest group runs first and takes all waiting rows of its key.
Everything here happens on the event loop, so no lock is needed.
"""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from services.errors import DeadlinePassed, Overloaded, ServiceError
from services.rollouts.canonical import Work
from services.rollouts.executor import AbstractExecutor, Batch
from services.rollouts.request import Arrays


@dataclass
class Counters:
    """What a batcher has done since it began."""

    batches: int = 0
    rows: int = 0
    requests: int = 0
    expired: int = 0
    refused: int = 0


@dataclass(eq=False)
class _Waiting:
    work: Work
    deadline: float
    future: asyncio.Future[Arrays]
    since: float = field(default_factory=time.monotonic)
    alone: bool = False


class Batcher:
    """Gathers the rows of many requests into batches for one executor.

    Args:
        executor: What runs the batches.
        max_batch_rows: Rows at which a batch is full; one larger request is a batch.
        queued_rows_limit: Rows that may wait or run before new ones are refused.
    """

    def __init__(
        self, executor: AbstractExecutor, *, max_batch_rows: int, queued_rows_limit: int
    ) -> None:
        self.executor = executor
        self.max_batch_rows = max_batch_rows
        self.queued_rows_limit = queued_rows_limit
        self.counters = Counters()
        self._queues: dict[tuple, deque[_Waiting]] = {}
        self._queued_rows = 0
        self._running: set[asyncio.Task[None]] = set()

    async def run(self, work: Work, *, deadline: float) -> Arrays:
        """Compute a request's rows, with others' where these fit.

        Args:
            work: The request.
            deadline: ``time.time()`` after which nobody waits for the answer.

        Raises:
            Overloaded: Too many rows wait already.
            DeadlinePassed: The deadline came before the answer.
        """
        if (
            self._queued_rows
            and self._queued_rows + work.count > self.queued_rows_limit
        ):
            self.counters.refused += 1
            raise Overloaded(
                f"{self._queued_rows} rows are waiting already, "
                f"at most {self.queued_rows_limit} may",
                retry_after_s=1.0,
            )
        loop = asyncio.get_running_loop()
        waiting = _Waiting(work, deadline, loop.create_future())
        self._queued_rows += work.count
        self.counters.requests += 1
        try:
            self._enqueue(waiting)
            self._dispatch()
            remaining = max(0.0, deadline - time.time())
            async with asyncio.timeout(remaining):
                return await waiting.future
        except TimeoutError:
            self.counters.expired += 1
            raise DeadlinePassed("the deadline passed before the rollout ran") from None
        finally:
            # A caller that left (its future is cancelled) is skipped when gathered.
            waiting.future.cancel()
            self._queued_rows -= work.count

    async def close(self) -> None:
        """Wait for the batches that run."""
        while self._running:
            await asyncio.wait(self._running)

    def _enqueue(self, waiting: _Waiting) -> None:
        key = (waiting.work.key, id(waiting)) if waiting.alone else waiting.work.key
        self._queues.setdefault(key, deque()).append(waiting)

    def _dispatch(self) -> None:
        while self._queues and len(self._running) < self.executor.concurrency:
            key = min(self._queues, key=lambda key: self._queues[key][0].since)
            members = self._take(key)
            if not members:
                continue
            task = asyncio.get_running_loop().create_task(self._run(members))
            self._running.add(task)
            task.add_done_callback(self._finished)

    def _take(self, key: tuple) -> list[_Waiting]:
        """Remove from a queue what still has a caller, up to a full batch."""
        queue = self._queues[key]
        members: list[_Waiting] = []
        rows = 0
        while queue:
            count = queue[0].work.count
            if members and rows + count > self.max_batch_rows:
                break
            waiting = queue.popleft()
            if not waiting.future.done() and waiting.deadline > time.time():
                members.append(waiting)
                rows += count
        if not queue:
            del self._queues[key]
        return members

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._dispatch()

    async def _run(self, members: list[_Waiting]) -> None:
        batch = _gather(members)
        self.counters.batches += 1
        self.counters.rows += sum(member.work.count for member in members)
        try:
            results = await self.executor.run(batch)
        except Exception as error:  # the boundary between requests that share a batch
            self._failed(members, error)
            return
        start = 0
        for member in members:
            stop = start + member.work.count
            if not member.future.done():
                member.future.set_result(
                    {name: array[start:stop] for name, array in results.items()}
                )
            start = stop

    def _failed(self, members: list[_Waiting], error: Exception) -> None:
        """Give each request its own try: one must not fail its neighbours."""
        shared = len(members) > 1 and not isinstance(error, ServiceError)
        for member in members:
            if member.future.done():
                continue
            if shared:
                member.alone = True
                self._enqueue(member)
            else:
                member.future.set_exception(error)


def _gather(members: list[_Waiting]) -> Batch:
    first = members[0].work
    if len(members) == 1:
        rows = first.rows
    else:
        rows = {
            name: np.concatenate([member.work.rows[name] for member in members])
            for name in first.rows
        }
    return Batch(
        first.operation,
        first.digest,
        {**rows, **first.shared},
        deadline=max(member.deadline for member in members),
        variant=first.variant,
    )
