"""Rollout batches by way of the queue: the gateway's side.

::

    gateway                          Valkey                          worker
    SET payload (arrays) ───────▶ spnode:batch:<id>
    Celery message (keys only) ─▶ queue "rollouts" ───────────▶ SET lease NX, renewed
                                                                 GET payload, compute
    BLPOP ◀────────────────────── spnode:replies:<gateway> ◀─── RPUSH reply, DEL payload

The worker's side is ``services.rollouts.remote_worker``. A batch whose lease is gone
and whose reply has not come was lost with its worker (or with the broker): its message
is sent again within its deadline. Batches are pure functions, so a doubled message
costs time and changes nothing; it finds the payload gone, or the lease held. One that
is refused since workers die of it gives each request in it a try of its own.

A deadline is told by a clock that no other process shares. A worker knows no more of it
than that Valkey lets go of the payload then.
"""

import asyncio
import contextlib
import logging
import math
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis

from services.errors import DeadlinePassed
from services.identity import new_id
from services.queue import Queue, redis_client, unavailable
from services.rollouts.executor import AbstractExecutor, Batch
from services.rollouts.failures import error_of
from services.rollouts.frames import pack, unpack
from services.rollouts.request import Arrays
from services.settings import Settings

LEASE_S = 5.0
"""A worker that has not renewed for this long counts as dead."""
RESEND_S = 5.0
"""After which time without lease and reply a batch's message is sent again."""
_POLL_S = 1.0
# After what failed, before the next reply is asked for.
_PAUSE_S = 0.2
# Batches sent and not answered. A worker computes one while the next one waits; two
# more are on their way.
_FOR_EACH_WORKER, _ON_THEIR_WAY = 2, 2
_LOG = logging.getLogger(__name__)


@dataclass(eq=False)
class _Pending:
    id: str
    batch: Batch
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Arrays]
    sent_at: float = 0.0
    is_answered: bool = False
    """Said before the event loop hears of it."""
    lost_after: int | None = None
    """After so many replies it is lost unless one was its own; None: it may be held."""

    def resolve(self, result: Arrays) -> None:
        self._answer(lambda: self.future.set_result(result))

    def fail(self, error: Exception) -> None:
        self._answer(lambda: self.future.set_exception(error))

    def _answer(self, how: Any) -> None:
        self.is_answered = True

        def once() -> None:
            if not self.future.done():
                how()

        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(once)


class QueueExecutor(AbstractExecutor):
    """Sends batches to rollout workers and listens for their replies.

    Args:
        settings: Where Valkey is.
        resend_s: After which time a batch without lease and reply is sent again.
    """

    def __init__(self, settings: Settings, *, resend_s: float = RESEND_S) -> None:
        self._settings = settings
        self.expect(settings.rollout_workers)
        self._resend_s = resend_s
        self._replies = f"spnode:replies:{new_id('gateway')}"
        self._outgoing: queue.SimpleQueue[_Pending | None] = queue.SimpleQueue()
        self._pending: dict[str, _Pending] = {}
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for name, target in (
                ("rollouts-send", self._send_all),
                ("rollouts-listen", self._listen),
            )
        ]
        self._taken = 0
        self.resent = 0

    async def start(self) -> None:
        """Start the two threads."""
        for thread in self._threads:
            thread.start()

    def expect(self, workers: int) -> None:
        """Send so many batches that as many workers, or those of settings, are busy."""
        most = max(workers, self._settings.rollout_workers)
        self.concurrency = _FOR_EACH_WORKER * most + _ON_THEIR_WAY

    async def run(
        self, batch: Batch, preparing: Callable[[], None] = lambda: None
    ) -> Arrays:
        """Send a batch and wait for its reply.

        Where this is cancelled its arrays are removed, so that no worker begins it. A
        worker prepares what it needs beside what it computes, so ``preparing`` is not
        called.
        """
        loop = asyncio.get_running_loop()
        pending = _Pending(new_id("batch"), batch, loop, loop.create_future())
        self._pending[pending.id] = pending
        self._outgoing.put(pending)
        try:
            return await pending.future
        except asyncio.CancelledError:
            pending.future.cancel()
            self._outgoing.put(pending)
            raise
        finally:
            self._pending.pop(pending.id, None)

    async def warm(self, digest: str) -> None:
        """Nothing: workers warm what they serve."""

    async def pin(self, digests: frozenset[str]) -> None:
        """Nothing: so do they with what is pinned."""

    def counters(self) -> dict[str, int]:
        """Batches that were sent again."""
        return {"resent": self.resent}

    async def close(self) -> None:
        """Stop both threads."""
        self._stopping.set()
        self._outgoing.put(None)
        for thread in self._threads:
            if thread.is_alive():
                await asyncio.to_thread(thread.join, 10)

    def _send_all(self) -> None:
        # apply_async blocks 0.6 ms: it has a thread of its own, never the event loop.
        sender = Queue(self._settings)
        with redis_client(self._settings) as client:
            while (pending := self._outgoing.get()) is not None:
                try:
                    self._send(sender, client, pending)
                except redis.RedisError as error:
                    pending.fail(unavailable(error))
                except Exception as error:  # the boundary of the thread
                    pending.fail(error)
                # Its arrays and its answer, until the next one comes.
                del pending
        sender.close()

    def _send(self, sender: Queue, client: redis.Redis, pending: _Pending) -> None:
        if pending.future.cancelled():
            client.delete(payload_key(pending.id))
            return
        remaining = pending.batch.deadline - time.monotonic()
        if remaining <= 0:
            pending.fail(
                DeadlinePassed("the deadline passed before the batch was sent")
            )
            return
        key = payload_key(pending.id)
        # A broker that was wiped has lost the arrays too.
        if not pending.sent_at or not client.exists(key):
            fields = {
                "operation": pending.batch.operation,
                "digest": pending.batch.digest,
                "variant": pending.batch.variant._asdict(),
                "traceparent": pending.batch.traceparent,
            }
            payload = pack(fields, pending.batch.arrays)
            client.set(key, payload, px=math.ceil(remaining * 1000))
        pending.sent_at = time.monotonic()
        sender.send_batch({"id": pending.id, "reply": self._replies})

    def _listen(self) -> None:
        with redis_client(self._settings) as client:
            while not self._stopping.is_set():
                try:
                    popped = client.blpop([self._replies], timeout=_POLL_S)
                    if popped and isinstance(frame := popped[1], bytes):
                        self._taken += 1
                        self._take(frame)
                    self._watch(client)
                except redis.RedisError:
                    # The connection comes back by itself; lost batches are sent again.
                    self._stopping.wait(_PAUSE_S)
                except Exception:  # the boundary of the thread
                    _LOG.exception("a reply could not be read")
                    self._stopping.wait(_PAUSE_S)
            with contextlib.suppress(redis.RedisError):
                client.delete(self._replies)

    def _take(self, frame: bytes) -> None:
        fields, arrays = unpack(frame)
        pending = self._pending.get(fields["id"])
        if pending is None:
            return
        if "error" in fields:
            pending.fail(error_of(fields["error"]))
        else:
            pending.resolve(arrays)

    def _watch(self, client: redis.Redis) -> None:
        """Send again what was lost; give up what nobody waits for any more."""
        now = time.monotonic()
        for pending in list(self._pending.values()):
            if pending.batch.deadline <= now:
                pending.fail(DeadlinePassed("no worker answered within the deadline"))
            elif self._is_lost(client, pending, now):
                pending.sent_at = now
                pending.lost_after = None
                self.resent += 1
                self._outgoing.put(pending)

    def _is_lost(self, client: redis.Redis, pending: _Pending, now: float) -> bool:
        """Whether no worker holds a batch, and no reply that waits is its own.

        A lease ends with its reply, which then is among those that wait: once these
        have been taken it is lost, however many have come behind them.
        """
        is_old = bool(pending.sent_at) and now - pending.sent_at > self._resend_s
        if not is_old or pending.is_answered:
            return False
        if client.exists(lease_key(pending.id)):
            pending.lost_after = None
            return False
        # The answer's type covers redis-py's asyncio client as well.
        waiting = int(client.llen(self._replies))  # pyright: ignore[reportArgumentType]
        if pending.lost_after is None:
            pending.lost_after = self._taken + waiting
        # None wait where the broker was wiped: so many are never taken then.
        return not waiting or self._taken >= pending.lost_after


def payload_key(id: str) -> str:
    """Where the arrays of a batch are."""
    return f"spnode:batch:{id}"


def lease_key(id: str) -> str:
    """What a worker holds that has begun a batch."""
    return f"spnode:batch:{id}:lease"
