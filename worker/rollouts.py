"""Rollout batches as Celery tasks: one engine a process, warm before it is asked.

A worker of the queue ``rollouts`` loads JAX in its own process, so it takes no other
queue: trainers fork, and nothing may fork after JAX has started.
"""

import logging
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import celery
import redis
from prometheus_client import REGISTRY

from services.errors import ServiceError, is_away
from services.metrics import Figures
from services.queue import BATCH_TASK, redis_client
from services.rollouts.executor import AbstractEngine, load_engine
from services.rollouts.remote_worker import serve_batch
from services.rollouts.served import champions, pinned
from services.rollouts.standstill import Standstill
from spnode_core.errors import SpnodeError
from worker.context import Context

_WARM_EVERY_S = 5.0
# For how long a new worker waits for a store that does not answer, before it says that
# it is warm.
_PATIENCE_S = 60.0
# After what failed unexpectedly.
_PAUSE_S = 0.2
log = logging.getLogger("spnode.worker")


class Batches:
    """Computes batches in the task's thread; another one loads, compiles, keeps warm.

    Args:
        context: The worker's services.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self.standstill = Standstill(context.settings.rollout_stall_seconds)
        self._loading = threading.Lock()
        self._engine: AbstractEngine | None = None
        self._computing = threading.Lock()
        self._client = redis_client(context.settings)
        self._warm: set[str] = set()
        self._missed: set[str] = set()
        self._patient_until = math.inf
        self._to_prepare: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._next_look = 0.0
        self._to_warm: set[str] | None = None
        self._steps: deque[Callable[[], None]] = deque()
        self._thread = threading.Thread(
            target=self._prepare_all, name="prepare", daemon=True
        )

    def start(self) -> None:
        """Load the engine and warm champions, now and whenever one is new."""
        REGISTRY.register(Figures(self._figures))
        self.standstill.start()
        self._patient_until = time.monotonic() + _PATIENCE_S
        self._thread.start()

    def close(self) -> None:
        """Answer the batches that are being prepared, then end."""
        self._to_prepare.put(None)
        self._thread.join()
        self.standstill.close()

    def serve(self, message: dict[str, Any]) -> None:
        """Compute one batch and push its reply, or have it prepared first."""
        if not self._served(message, prepare=False):
            self._to_prepare.put(message)

    def _served(self, message: dict[str, Any], *, prepare: bool) -> bool:
        return serve_batch(
            message,
            self._loaded(),
            self._client,
            computing=self._computing,
            watching=self.standstill,
            prepare=prepare,
        )

    def _loaded(self) -> AbstractEngine:
        with self._loading:
            if self._engine is None:
                settings, blobs = self._context.settings, self._context.blobs
                self._engine = load_engine(settings, blobs)
            return self._engine

    def _figures(self) -> dict[str, int]:
        return self._engine.figures() if self._engine else {}

    def _prepare_all(self) -> None:
        is_open = True
        while is_open:
            try:
                is_open = self._prepare_next()
            except Exception:  # the boundary of the thread
                log.exception("what is asked for most could not be made ready")
                time.sleep(_PAUSE_S)

    def _prepare_next(self) -> bool:
        """Do the next thing there is to do; False where the worker stops."""
        if not self._context.stopping.is_set() and time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _WARM_EVERY_S
            wanted = self._wanted()
            self._to_warm = self._to_warm if wanted is None else wanted
        # A batch that waits goes first, then versions, step by step, then tiles.
        steps, to_warm = self._steps, self._to_warm
        busy = bool(steps or to_warm) or self._has_idled()
        try:
            message = self._to_prepare.get(timeout=0 if busy else 1.0)
        except queue.Empty:
            if steps:
                self._do(steps.popleft())
            elif to_warm:
                steps.extend(self._warming(to_warm.pop()))
            elif to_warm is not None:
                self._say_warm()
            return True
        if message is not None:
            self._prepare(message)
        return message is not None

    def _prepare(self, message: dict[str, Any]) -> None:
        try:
            self._served(message, prepare=True)
        except redis.RedisError as error:
            log.error("a batch was prepared for nobody: %s", error)
        except Exception:  # the boundary of the thread
            log.exception("a batch cannot be prepared")

    def _say_warm(self) -> None:
        if self._context.warm.is_set() or self._context.stopping.is_set():
            return  # who stops has left the list, or soon will
        if self._missed and time.monotonic() < self._patient_until:
            return
        self._context.warm.set()
        try:
            self._context.beat()
        except ServiceError as error:
            log.warning("the housekeeping says so soon: %s", error)

    def _wanted(self) -> set[str] | None:
        """Versions to warm: champions and pinned ones that are not; None: unknown."""
        registry = self._context.registry
        try:
            kept = pinned(registry, self._context.settings.pinned_models)
            digests = champions(registry) | kept
        except ServiceError as error:
            log.warning("champions could not be looked up: %s", error)
            return None
        if kept or self._engine is not None:
            self._loaded().pin(kept)
        self._warm &= digests
        self._missed &= digests
        return digests - self._warm

    def _has_idled(self) -> bool:
        """Try one more tile, unless a batch is computed; whether there was one."""
        if self._engine is None or self._computing.locked():
            return False
        try:
            with self.standstill:
                return self._engine.idle()
        except Exception:  # the boundary of the thread
            log.exception("a shape could not be prepared")
            return True

    def _warming(self, digest: str) -> list[Callable[[], None]]:
        """Load a version; what makes it ready, step by step."""
        self._warm.add(digest)
        try:
            with self.standstill:
                steps = self._loaded().warming(digest)
        except (ServiceError, SpnodeError) as error:
            log.error("artifact %s cannot be served: %s", digest, error)
            if is_away(error):
                # The store is away: the next look finds it again.
                self._warm.discard(digest)
                self._missed.add(digest)
            return []
        self._missed.discard(digest)
        return steps

    def _do(self, step: Callable[[], None]) -> None:
        try:
            with self.standstill:
                step()
        except Exception:  # the boundary of the thread: one bad model stops no other
            log.exception("a version cannot be made ready")


def register(app: celery.Celery, context: Context) -> Batches:
    """Define the task on an application and return what serves it."""
    batches = Batches(context)
    # Without prefetch Celery looks for the next message once a second (measured), and a
    # batch that is reserved by a worker that dies is sent again by its gateway anyway.
    app.conf.worker_disable_prefetch = False

    @app.task(name=BATCH_TASK, ignore_result=True)
    def rollout_batch(message: dict[str, Any]) -> None:
        batches.serve(message)

    return batches
