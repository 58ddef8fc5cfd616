"""Events of jobs for many listeners: the table is the truth, one tailer reads it.

::

    events table --(one query per watched job, every 0.3 s)--> bytes, once --> listeners

A listener replays what it has missed, then subscribes from there, and drops what it has
been sent already: nothing is lost in between, nothing comes twice. Ids are the
table's. How far the job is comes beside them, without an id, since the row keeps only
the newest: first when all that has happened is told, then whenever it changes.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
)
from dataclasses import dataclass, field
from typing import Any

import orjson

from services.errors import NotFound, Overloaded, ServiceError, Unavailable
from services.jobs import Jobs
from services.lifecycle import TERMINAL, Event, Job

POLL_S = 0.3
KEEP_ALIVE_S = 15.0
ASKED_EVERY_S = 0.5
"""How often it is asked whether a listener may still listen."""
KEEP_ALIVE = b": keep-alive\n\n"
# A listener that is this far behind is dropped: it can resume by Last-Event-ID.
_QUEUE = 1000
_PAGE = 1000
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoded:
    """An event as every listener gets it."""

    id: int
    """0: the table does not have it."""
    data: bytes
    is_last: bool


@dataclass(eq=False)
class _Listener:
    queue: asyncio.Queue[Encoded | None] = field(
        default_factory=lambda: asyncio.Queue(_QUEUE)
    )


@dataclass
class _Topic:
    last: int
    progress: dict[str, Any] | None = None
    listeners: set[_Listener] = field(default_factory=set)


class EventHub:
    """Reads the events of jobs that somebody listens to.

    Args:
        jobs: Where events are.
        sql: Calls a function off the event loop.
    """

    def __init__(self, jobs: Jobs, sql: Callable[..., Awaitable[Any]]) -> None:
        self._jobs = jobs
        self._sql = sql
        self._topics: dict[str, _Topic] = {}
        self._is_closed = False
        self._wanted = asyncio.Event()

    async def run(self) -> None:
        """Tail the table as long as somebody listens."""
        while True:
            if not self._topics:
                self._wanted.clear()
                await self._wanted.wait()
            for job_id, topic in list(self._topics.items()):
                try:
                    await self._tail(job_id, topic)
                except Exception:  # the boundary of the task: one job stops no other
                    _LOG.exception("events of %s could not be read", job_id)
                    _drop_all(topic)
            await asyncio.sleep(POLL_S)

    def close(self) -> None:
        """End every stream: the process stops, listeners resume elsewhere."""
        self._is_closed = True
        for topic in self._topics.values():
            _drop_all(topic)

    async def stream(
        self, job_id: str, after: int, may_listen: Callable[[], Awaitable[bool]]
    ) -> AsyncIterator[bytes]:
        """Yield a job's events from after an id on, as server-sent events, to the last.

        Args:
            job_id: A job that exists.
            after: Id of the last event that the listener knows; 0 for all of them.
            may_listen: Whether it may go on: its key may be revoked meanwhile.
        """
        asked = spoke = time.monotonic()
        async with contextlib.aclosing(self._pieces(job_id, after)) as pieces:
            async for piece in pieces:
                now = time.monotonic()
                if now - asked >= ASKED_EVERY_S:
                    asked = now
                    if not await _may(may_listen):
                        return
                if piece is not None or now - spoke >= KEEP_ALIVE_S:
                    spoke = now
                    yield KEEP_ALIVE if piece is None else piece

    async def _pieces(
        self, job_id: str, after: int
    ) -> AsyncGenerator[bytes | None, None]:
        """Events as they are sent; None where for half a second there was none."""
        sent = after
        # A job that has ended already is read once more: its last event and its state
        # were committed together, maybe after the first reading.
        for ended in (False, True):
            if ended:
                job = await self._sql(self._jobs.get, job_id)
                if not job.is_terminal:
                    yield encode_progress(job).data
                    break
            async for event in self._replay(job_id, sent):
                sent = event.id
                yield event.data
                if event.is_last:
                    return
            if ended:
                return
        with self._subscribed(job_id, sent) as listener:
            async for event in _listen(listener):
                if event is None:
                    yield None
                elif event.id > sent or event.id == 0:
                    sent = max(sent, event.id)
                    yield event.data
                    if event.is_last:
                        return

    @contextlib.contextmanager
    def _subscribed(self, job_id: str, sent: int) -> Iterator[_Listener]:
        """A listener of what comes after an event."""
        listener = _Listener()
        topic = self._topics.setdefault(job_id, _Topic(sent))
        # Others may know more, or say so: each drops what it knows.
        topic.last = min(topic.last, sent)
        topic.listeners.add(listener)
        if self._is_closed:
            _drop(topic, listener)
        self._wanted.set()
        try:
            yield listener
        finally:
            topic.listeners.discard(listener)
            if not topic.listeners and self._topics.get(job_id) is topic:
                del self._topics[job_id]

    async def _replay(self, job_id: str, after: int) -> AsyncIterator[Encoded]:
        while True:
            events = await self._sql(
                self._jobs.events, job_id, after=after, limit=_PAGE
            )
            # Of several ends (a retried job has more than one) only the newest counts.
            newest = events[-1].id if len(events) < _PAGE and events else None
            for event in events:
                yield encode(event, may_end=event.id == newest)
            if len(events) < _PAGE:
                return
            after = events[-1].id

    async def _tail(self, job_id: str, topic: _Topic) -> None:
        asked = topic.last
        try:
            job, events = await self._sql(
                self._jobs.news, job_id, after=asked, limit=_PAGE
            )
        except NotFound:
            return
        except ServiceError as error:
            _LOG.warning("events of %s could not be read: %s", job_id, error)
            return
        if topic.last != asked:
            # Meanwhile one has come who knows less: it is read again.
            return
        for event in events:
            topic.last = event.id
            _offer(topic, encode(event, may_end=event is events[-1]))
        if job.progress != topic.progress and not job.is_terminal:
            topic.progress = job.progress
            _offer(topic, encode_progress(job))


def encode(event: Event, *, may_end: bool) -> Encoded:
    """An event as a server-sent event."""
    told = {
        "id": event.id,
        "kind": event.kind,
        "level": event.level,
        "message": event.message,
        "data": event.data,
        "created_at": event.created_at,
    }
    data = orjson.dumps(told, option=orjson.OPT_UTC_Z)
    text = b"id: %d\nevent: %s\ndata: %s\n\n" % (event.id, event.kind.encode(), data)
    state = (event.data or {}).get("state") if event.kind == "status" else None
    return Encoded(event.id, text, may_end and state in TERMINAL)


def encode_progress(job: Job) -> Encoded:
    """How far a job is as a server-sent event; whoever resumes is told it anew."""
    told = {"id": None, "kind": "progress", "data": job.progress}
    text = b"event: progress\ndata: %s\n\n" % orjson.dumps(told)
    return Encoded(0, text, is_last=False)


def _offer(topic: _Topic, event: Encoded) -> None:
    for listener in list(topic.listeners):
        try:
            listener.queue.put_nowait(event)
        except asyncio.QueueFull:
            _drop(topic, listener)


def _drop_all(topic: _Topic) -> None:
    for listener in list(topic.listeners):
        _drop(topic, listener)


def _drop(topic: _Topic, listener: _Listener) -> None:
    topic.listeners.discard(listener)
    # It ends at what it has been sent, so that it resumes from there.
    while not listener.queue.empty():
        listener.queue.get_nowait()
    listener.queue.put_nowait(None)


async def _listen(listener: _Listener) -> AsyncIterator[Encoded | None]:
    """Events as they come, None after each pause; ends for who was dropped."""
    while True:
        try:
            async with asyncio.timeout(ASKED_EVERY_S):
                event = await listener.queue.get()
        except TimeoutError:
            yield None
            continue
        if event is None:
            return
        yield event


async def _may(listen: Callable[[], Awaitable[bool]]) -> bool:
    try:
        return await listen()
    except Unavailable:  # no events can be read then either
        return True
    except Overloaded:  # by those who guess keys; who has one resumes
        return False
