"""Celery with a result backend of its own: tasks that begin, by as many processes."""

import json
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import celery
import redis

from benchmarks.peers.celery_tasks import APPLICATION, BACKEND, BROKER
from benchmarks.peers.environment import PeerError
from benchmarks.speed.claim_stores import CLAIMERS
from benchmarks.speed.deployment import Running, start_valkey
from benchmarks.speed.turns import Took
from services.queue import broker_url

_ANSWER_S = 120.0
_RESULT = "celery-task-meta-"


@dataclass
class CeleryPeer:
    """A worker of Celery that takes what it is told to.

    Args:
        app: To send by.
        results: Where results are kept.
        tasks: Of a round.
    """

    app: celery.Celery
    results: redis.Redis
    tasks: int

    def round(self) -> Took:
        """Let the worker take a queue of tasks; what one took, by their own clocks.

        Raises:
            PeerError: Not every task has a result in time.
        """
        queue = f"claims-{secrets.token_hex(4)}"
        sent = [
            self.app.send_task("bench.begin", queue=queue) for _ in range(self.tasks)
        ]
        self.app.control.add_consumer(queue, reply=True)
        began = sorted(self._began(each.id) for each in sent)
        self.app.control.cancel_consumer(queue, reply=True)
        took = (began[-1] - began[0]) / (len(began) - 1)
        return Took(took, 0.0)

    def _began(self, id: str) -> float:
        end = time.monotonic() + _ANSWER_S
        while time.monotonic() < end:
            kept = self.results.get(f"{_RESULT}{id}")
            # The client's type covers its asyncio sibling as well.
            told = json.loads(kept) if isinstance(kept, bytes) else {}
            if told.get("status") == "SUCCESS":
                return told["result"]
            time.sleep(0.02)
        raise PeerError(f"celery: task {id} has no result after {_ANSWER_S:g} s")


@contextmanager
def celery_peer(folder: Path, tasks: int) -> Iterator[CeleryPeer]:
    """Valkey as broker and result backend, and a worker of four processes.

    Args:
        folder: New; its path must be short, for a socket.
        tasks: Of a round.

    Raises:
        PeerError: They do not start.
    """
    folder.mkdir(parents=True)
    socket = folder / "valkey.sock"
    urls = {
        BROKER: broker_url(f"unix://{socket}"),
        BACKEND: broker_url(f"unix://{socket}?db=1"),
    }
    with Running(folder) as running:
        start_valkey(running, socket)
        command = [sys.executable, "-P", "-m", "celery", "-A", APPLICATION, "worker"]
        given = ["--queues", "idle", "--concurrency", str(CLAIMERS)]
        process = running.start("celery", [*command, *given], urls)
        app = celery.Celery("bench", broker=urls[BROKER])
        results = redis.Redis.from_url(f"unix://{socket}?db=1")
        try:
            running.wait("celery", process, lambda: bool(app.control.ping(timeout=0.5)))
            yield CeleryPeer(app, results, tasks)
        finally:
            results.close()
            app.close()
