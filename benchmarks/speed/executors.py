"""The queue executor against the inline one: batches whose answer has 8 kB."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.paper.rows import Numbers
from benchmarks.speed.computing import computing
from benchmarks.speed.deployment import READY_WITHIN_S, this_process
from benchmarks.speed.figures import Figure, Options, Tell, number
from benchmarks.speed.robertson import times, unseen
from benchmarks.speed.turns import spread
from services.blobs import Blobs
from services.rollouts.executor import (
    AbstractExecutor,
    Batch,
    InlineExecutor,
    load_engine,
)
from services.rollouts.remote import QueueExecutor

if TYPE_CHECKING:
    from benchmarks.speed.serving import Serving

# Seven trajectories of 51 times of 3 states in float64: 8.6 kB.
ROWS = 7
_ALONE = 60


def figures(options: Options, serving: Serving) -> list[Figure]:
    """Added latency, and batches a second."""
    settings = {"rows": ROWS}
    return [
        Figure(
            "a batch of 8 kB by the queue: median latency added",
            "inline executor",
            partial(_added, serving),
            at_most=4.0,
            unit="ms",
            settings=settings,
        ),
        Figure(
            "batches of 8 kB by the queue, one worker",
            "350 a second",
            partial(_batches, serving),
            at_least=350.0,
            unit="1/s",
            settings=settings,
        ),
    ]


def _added(serving: Serving, tell: Tell) -> Numbers:
    queued, inline = asyncio.run(_alone(serving))
    added = [q - i for q, i in zip(queued, inline, strict=True)]
    return {
        "value": spread(added),
        "ours": number(statistics.median(queued), "ms"),
        "theirs": number(statistics.median(inline), "ms"),
    }


async def _alone(serving: Serving) -> tuple[list[float], list[float]]:
    found: dict[str, list[float]] = {"queue": [], "inline": []}
    async with _executors(serving) as executors:
        for _ in range(serving.rounds):
            for name, executor in executors.items():
                taken = [await _timed(serving, executor) for _ in range(_ALONE)]
                found[name].append(1e3 * statistics.median(taken))
    return found["queue"], found["inline"]


def _batches(serving: Serving, tell: Tell) -> Numbers:
    queued, inline = asyncio.run(_rates(serving))
    return {
        "value": spread(queued),
        "ours": number(statistics.median(queued), "batches/s"),
        "notes": [
            "The inline executor computes "
            f"{number(statistics.median(inline))} such batches a second."
        ],
    }


async def _rates(serving: Serving) -> tuple[list[float], list[float]]:
    found: dict[str, list[float]] = {"queue": [], "inline": []}
    async with _executors(serving) as executors:
        for _ in range(serving.rounds):
            for name, executor in executors.items():
                found[name].append(await _rate(serving, executor))
    return found["queue"], found["inline"]


async def _rate(serving: Serving, executor: AbstractExecutor) -> float:
    """As many batches in flight as the executor takes."""
    end = time.perf_counter() + serving.seconds
    counts = [0] * executor.concurrency

    async def keep_busy(number: int) -> None:
        while time.perf_counter() < end:
            await executor.run(_batch(serving))
            counts[number] += 1

    began = time.perf_counter()
    await asyncio.gather(*map(keep_busy, range(len(counts))))
    return sum(counts) / (time.perf_counter() - began)


@asynccontextmanager
async def _executors(serving: Serving) -> AsyncIterator[dict[str, AbstractExecutor]]:
    """Both executors, warm, with one rollout worker."""
    worker = serving.worker
    settings = serving.deployment.settings.model_copy(update={"executor": "queue"})
    blobs = Blobs(settings.store_url)
    executors: dict[str, AbstractExecutor] = {
        "queue": QueueExecutor(settings),
        "inline": InlineExecutor(lambda: load_engine(settings, blobs)),
    }
    try:
        for executor in executors.values():
            await executor.start()
            for _ in range(2 * _ALONE):
                await executor.run(_batch(serving))
        await asyncio.to_thread(worker.wait_until_quiet)
        await asyncio.to_thread(this_process().wait_until_quiet)
        yield executors
    finally:
        for executor in executors.values():
            await executor.close()


async def _timed(serving: Serving, executor: AbstractExecutor) -> float:
    began = time.perf_counter()
    await executor.run(_batch(serving))
    return time.perf_counter() - began


def _batch(serving: Serving) -> Batch:
    digest = computing(serving.options).model.digest
    arrays = {"x0": unseen(ROWS), "times": times()}
    return Batch("rollout", digest, arrays, time.monotonic() + READY_WITHIN_S)
