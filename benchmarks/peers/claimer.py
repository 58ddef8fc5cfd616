"""A process that claims jobs: by our code, by bare statements, in batches."""

import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg

from benchmarks.peers.answering import answer_calls
from services.database.engine import Database
from services.errors import Unavailable
from services.leases import Leases

BATCH, QUEUE = 20, "datasets"
_TAKE = """
UPDATE jobs SET state = 'running', token = token + 1, lease_owner = %(worker)s,
    lease_until = %(until)s, started_at = coalesce(started_at, %(now)s)
"""
_ONE = f"{_TAKE} WHERE id = %(id)s AND state = 'queued'"
_MANY = f"""{_TAKE} WHERE id IN (
    SELECT id FROM jobs WHERE state = 'queued' LIMIT %(batch)s FOR UPDATE SKIP LOCKED
) RETURNING id"""
Claim = Callable[[str], int]
"""Tries to take a job, or a batch of any; gives how many it took."""


class Claimer:
    """Claims as it is told to; one connection."""

    def __init__(self) -> None:
        self._claims: dict[str, Claim] = {}

    def connect(self, url: str, worker: str) -> dict[str, Any]:
        """Open connections and make every way to claim."""
        leases = Leases(Database(url))
        # It takes the first that waits, whichever the message was sent for.
        self._claims = {"ours": lambda _: int(leases.claim(QUEUE, worker) is not None)}
        if not leases.database.is_sqlite:
            plain = url.replace("postgresql+psycopg", "postgresql")
            for name, autocommit in (("update", False), ("autocommit", True)):
                connection = psycopg.connect(plain, autocommit=autocommit)
                one = functools.partial(_take, connection, worker, _ONE)
                self._claims[name] = one
                if not autocommit:
                    many = functools.partial(_take, connection, worker, _MANY)
                    self._claims["batches"] = many
        return {}

    def claim(
        self, how: str, ids: Sequence[str], at: float, seconds: float
    ) -> dict[str, Any]:
        """Claim from a moment on, until time is up or no id is left.

        Returns:
            ``won`` and ``lost`` claims; ``locked``, how often the database said no;
            the clock's time and the CPU's.
        """
        claim, won, lost, locked = self._claims[how], 0, 0, 0
        time.sleep(max(0.0, at - time.time()))
        cpu, began = time.process_time(), time.perf_counter()
        for id in _until(began + seconds, ids):
            try:
                taken = claim(id)
            except Unavailable:
                locked += 1
                continue
            if how == "batches" and not taken:
                break
            won += taken
            lost += taken == 0
        return {
            "won": won,
            "lost": lost,
            "locked": locked,
            "wall_s": time.perf_counter() - began,
            "cpu_s": time.process_time() - cpu,
            "process": os.getpid(),
        }


def _until(end: float, ids: Sequence[str]) -> Iterator[str]:
    for id in ids:
        if time.perf_counter() > end:
            return
        yield id


def _take(
    connection: psycopg.Connection[Any], worker: str, statement: Any, id: str
) -> int:
    now = int(time.time() * 1e6)
    values = {"id": id, "worker": worker, "now": now, "until": now + 15_000_000}
    taken = connection.execute(statement, values | {"batch": BATCH}).rowcount
    connection.commit()
    return taken


if __name__ == "__main__":
    claimer = Claimer()
    answer_calls({"connect": claimer.connect, "claim": claimer.claim})
