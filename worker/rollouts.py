"""Rollout batches as Celery tasks: one engine a process, warm before it is asked.

A worker of the queue ``rollouts`` loads JAX in its own process, so it takes no other
queue: trainers fork, and nothing may fork after JAX has started.
"""

import logging
import threading
from typing import Any

import celery

from services.errors import ServiceError
from services.queue import BATCH_TASK, redis_client
from services.rollouts.executor import AbstractEngine, load_engine
from services.rollouts.remote import serve_batch
from services.rollouts.served import champions
from spnode_core.errors import SpnodeError
from worker.context import Context

_WARM_EVERY_S = 5.0
log = logging.getLogger("spnode.worker")


class Batches:
    """Computes batches and keeps champions warm.

    Args:
        context: The worker's services.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._engine: AbstractEngine | None = None
        self._client = redis_client(context.settings)
        self._warm: set[str] = set()
        self._waiting = threading.Event()

    def start(self) -> None:
        """Load the engine and warm champions, now and whenever one is new."""
        threading.Thread(target=self._keep_warm, name="warm", daemon=True).start()

    def serve(self, message: dict[str, Any]) -> None:
        """Compute one batch and push its reply."""
        # A lock is not fair: whoever prepares shapes must see that a batch waits.
        self._waiting.set()
        with self._lock:
            self._waiting.clear()
            serve_batch(message, self._loaded(), self._client)

    def _loaded(self) -> AbstractEngine:
        if self._engine is None:
            self._engine = load_engine(self._context.settings, self._context.blobs)
        return self._engine

    def _keep_warm(self) -> None:
        while True:
            try:
                digests = champions(self._context.registry)
                for digest in digests - self._warm:
                    self._warm_one(digest)
                self._warm &= digests
            except ServiceError as error:
                log.warning("champions could not be looked up: %s", error)
            if self._context.stopping.wait(_WARM_EVERY_S):
                return
            self._idle()

    def _idle(self) -> None:
        """Prove one shape at a time, so that a batch waits for one at most."""
        while self._engine is not None and not self._waiting.is_set():
            with self._lock:
                if not self._engine.idle():
                    return

    def _warm_one(self, digest: str) -> None:
        self._warm.add(digest)
        try:
            with self._lock:
                self._loaded().warm(digest)
        except (ServiceError, SpnodeError) as error:
            log.error("artifact %s cannot be served: %s", digest, error)


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
