"""Requests whose rows may share a batch, and which of them are in the next one.

Half of a batch goes to the requests with the fewest rows left, the other half to those
that came first. So a short request never waits for a long one; requests of one size end
one after another, each as early as it can, where even shares would end them all late;
and the oldest has half of what is computed, however many short ones come.
"""

import asyncio
import heapq
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from services.rollouts.work import RowResults, Work
from services.traces import traceparent


@dataclass(eq=False, slots=True)
class Request:
    """A request of which rows wait or are computed."""

    work: Work
    key: tuple
    """Requests with the same one share batches."""
    deadline: float
    future: asyncio.Future[RowResults]
    size_bytes: int
    order: int
    """Counts requests as they come."""
    todo: deque[tuple[int, int]]
    """Ranges of rows that are in no batch."""
    missing: int
    """Rows without results."""
    results: RowResults = field(default_factory=RowResults)
    traceparent: str | None = field(default_factory=traceparent)
    """Of the span that asked for it."""
    since: float | None = field(default_factory=time.monotonic)
    """When it came; None once its first rows are in a batch."""

    def separate(self) -> None:
        """It runs on its own from now on."""
        self.key = (self.work.key, id(self))

    @property
    def waiting(self) -> int:
        """Rows that are in no batch."""
        return sum(stop - start for start, stop in self.todo)

    def cut(self, rows: int) -> "list[Part]":
        """Take so many rows, in their order."""
        parts = []
        while rows:
            start, stop = self.todo.popleft()
            if stop - start > rows:
                self.todo.appendleft((start + rows, stop))
                stop = start + rows
            parts.append(Part(self, start, stop))
            rows -= stop - start
        return parts


class Part(NamedTuple):
    """Rows of a request that run in one batch."""

    request: Request
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """How many."""
        return self.stop - self.start

    @property
    def size_bytes(self) -> float:
        """Their part of the request's bytes."""
        return self.request.size_bytes * self.rows / self.request.work.count


class Group:
    """The requests of one key that have rows in no batch.

    Args:
        turn: When it came, on the clock that counts requests.
    """

    def __init__(self, turn: int) -> None:
        self._turn = turn
        # By their order, so in that in which they came.
        self._requests: dict[int, Request] = {}
        # Rows left and order; what has changed since is pushed again.
        self._shortest: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._requests)

    @property
    def turn(self) -> int:
        """When its oldest request came, or the group had its last turn since."""
        oldest = next(iter(self._requests.values()))
        return oldest.order if oldest.since is not None else self._turn

    def had_its_turn(self, turn: int) -> None:
        """A batch was cut, or ended: others go first whose requests came until now."""
        self._turn = turn

    def add(self, request: Request) -> None:
        """Rows of a request wait."""
        self._requests[request.order] = request
        self._push(request)

    def remove(self, request: Request) -> None:
        """They do not any more."""
        self._requests.pop(request.order, None)

    def take(self, rows: int, *, requests: float = math.inf) -> list[Part]:
        """Cut the next batch, of so many rows at most, from about so many requests.

        Half of both goes to the shortest, and what that leaves to the oldest.
        """
        parts = self._cut_from(self._next_shortest, rows // 2, requests / 2)
        rows -= sum(part.rows for part in parts)
        requests -= sum(not part.request.todo for part in parts)
        rest = self._cut_from(self._next_oldest, rows, max(1, requests))
        return _joined(parts + rest)

    def _cut_from(
        self, choose: Callable[[], Request | None], rows: int, requests: float
    ) -> list[Part]:
        """So many rows at most of one request after the other."""
        parts: list[Part] = []
        now = time.monotonic()
        while rows and len(parts) < requests and (request := choose()):
            mine = self._cut(request, rows, now)
            rows -= sum(part.rows for part in mine)
            parts += mine
        return parts

    def _next_shortest(self) -> Request | None:
        while self._shortest:
            waiting, order = heapq.heappop(self._shortest)
            request = self._requests.get(order)
            if request is not None and request.waiting == waiting:
                return request
        return None

    def _next_oldest(self) -> Request | None:
        return next(iter(self._requests.values()), None)

    def _cut(self, request: Request, rows: int, now: float) -> list[Part]:
        """Some rows of a request; none, and it goes, where nobody waits for it."""
        if request.future.done() or request.deadline <= now:
            self.remove(request)
            return []
        parts = request.cut(min(rows, request.waiting))
        if request.todo:
            self._push(request)
        else:
            self.remove(request)
        return parts

    def _push(self, request: Request) -> None:
        heapq.heappush(self._shortest, (request.waiting, request.order))
        if len(self._shortest) > 2 * len(self._requests) + 64:
            self._shortest = [
                (each.waiting, order) for order, each in self._requests.items()
            ]
            heapq.heapify(self._shortest)


def _joined(parts: list[Part]) -> list[Part]:
    """The same rows in fewer parts: what follows on is not handed over twice."""
    found: list[Part] = []
    for part in parts:
        last = found[-1] if found else None
        if last and last.request is part.request and last.stop == part.start:
            found[-1] = Part(part.request, last.start, part.stop)
        else:
            found.append(part)
    return found
