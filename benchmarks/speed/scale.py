"""Scale: throughput against workers, rows, steps, state and resident models."""

import asyncio
import functools
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.paper.rows import Numbers, Records
from benchmarks.speed.computing import (
    THROUGHPUT,
    Computing,
    computing,
    stored_copies,
)
from benchmarks.speed.deployment import READY_WITHIN_S, deployed
from benchmarks.speed.figures import Figure, Group, Options, Tell, number
from benchmarks.speed.robertson import SURROGATE, TRAINING, times, unseen
from benchmarks.speed.turns import Took, in_words, measured, spread
from services.rollouts.executor import Batch
from services.rollouts.remote import QueueExecutor
from spnode_core import SurrogateSpec, artifact, check_arrays
from spnode_core.spec import ModalSpec, PODSpec, RatesSpec, UniformStepsSpec
from spnode_core.training.initialise import create_surrogate
from spnode_core.training.presets import resolve

Point = tuple[int, Took]
WORKERS = (1, 2)
ROWS = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)
STEPS = (10, 100, 1_000, 10_000, 100_000)
STATES = (3, 16, 64, 256, 1024, 4096)
MODELS = (1, 10, 50, 100, 200)
# Answers of so many rows are computed and let go, one after the other.
_CHUNK_ROWS = 10_000
_LATENT_OF_FIELD, _FIELD_STEPS, _FIELD_ROWS = 8, 50, 64
_WINDOW_S, _BATCH_ROWS = 3.0, 256

ABOUT = """
How the cost of a unit of work changes with the size of the work. *Linear* would be a
last column of 1 throughout: the cost of a unit over that at the cheapest point. Rows
and models are those of Robertson's model; steps are those of an untrained model with
uniform steps, one row, output at the end alone; states are those of an untrained model
of fields, principal directions to 8 latent variables. Times are CPU times of all
threads, but with workers, where the clock counts.
"""


def figures(options: Options, stack: ExitStack) -> list[Figure]:
    """All of them; none needs a peer."""
    sweeps: dict[str, Callable[[Options], tuple[Sequence[Point], str]]] = {
        "rows of a rollout, throughput mode": _rows,
        "steps of a rollout": _steps,
        "states of a model": _states,
        "resident models": _models,
    }
    found = [
        Figure(name, "linear", partial(_swept, options, name, sweep), unit="x")
        for name, sweep in sweeps.items()
    ]
    workers = partial(_workers, options)
    return [*found, Figure("rollout workers, queue", "linear", workers)]


def _swept(
    options: Options,
    name: str,
    sweep: Callable[[Options], tuple[Sequence[Point], str]],
    tell: Tell,
) -> Numbers:
    points, account = sweep(options)
    costs = [took.cpu_s / size for size, took in points]
    least = min(costs)
    rows = [
        (f"{size:,}", in_words(took.cpu_s), number(size / took.cpu_s), cost / least)
        for (size, took), cost in zip(points, costs, strict=True)
    ]
    return {
        "table": {
            "columns": [
                name,
                "CPU time",
                "a core-second",
                "cost of one over the least",
            ],
            "rows": rows,
        },
        "points": [(size, took.cpu_s) for size, took in points],
        "notes": [account],
    }


def _rows(options: Options) -> tuple[list[Point], str]:
    ours = computing(options)
    sizes = ROWS[:3] if options.quick else ROWS
    points = []
    for rows in sizes:
        chunk = min(rows, _CHUNK_ROWS)
        roll = ours.rollout(chunk, THROUGHPUT)

        def call(roll: Callable[[], Any] = roll, rows: int = rows) -> None:
            for _ in range(math.ceil(rows / _CHUNK_ROWS)):
                roll()

        points.append((rows, _median(call, 1 if rows > _CHUNK_ROWS else 5)))
    return points, (
        "Few rows fill a tile of the smallest proven size, so that one row costs as "
        "much as a tile; from some hundred rows on tiles of 256 are full and the cost "
        "of a row is level. Above 10,000 rows the answer is made in parts."
    )


def _steps(options: Options) -> tuple[list[Point], str]:
    ours = computing(options)
    spec = SURROGATE.model_copy(update={"steps": UniformStepsSpec(step=1.0)})
    dataset = _relaxing(3)
    digest = _store(ours, spec, dataset)
    points = []
    for steps in STEPS[:2] if options.quick else STEPS:
        arrays = {"x0": dataset.states[:1, 0], "times": np.array([float(steps)])}
        points.append((steps, _run(ours, digest, arrays)))
    return points, (
        "Steps are padded to the next of 2^k and 3 * 2^k, at most half as many again; "
        "below some hundred steps a call's own cost shows."
    )


def _states(options: Options) -> tuple[list[Point], str]:
    ours = computing(options)
    points = []
    for states in STATES[:2] if options.quick else STATES:
        latent = min(states, _LATENT_OF_FIELD)
        spec = SurrogateSpec(
            latent=latent,
            linear=ModalSpec(rates=RatesSpec(minimum=0.1, maximum=10.0)),
            autoencoder=PODSpec(),
            steps=UniformStepsSpec(step=1.0),
        )
        dataset = _relaxing(states)
        digest = _store(ours, spec, dataset)
        x0 = np.repeat(dataset.states[:1, 0], _FIELD_ROWS, axis=0)
        at = np.arange(1.0, _FIELD_STEPS + 1)
        points.append((states, _run(ours, digest, {"x0": x0, "times": at})))
    return points, (
        "Steps cost the same whatever the number of states; the decoder's product and "
        "the answer's bytes grow with it, so that small states are dear by the state "
        "and large ones cost what they write. From about 20 MB on (800 states here) an "
        "answer takes new pages of memory each time, which cost several times more "
        "than the numbers in them."
    )


def _models(options: Options) -> tuple[list[Point], str]:
    ours = computing(options)
    counts = (1, 3) if options.quick else MODELS
    digests = stored_copies(ours, counts[-1])
    for digest in digests:
        ours.engine.run("rollout", digest, {"x0": unseen(8), "times": times()})
    points = []
    for count in counts:

        def call(chosen: Sequence[str] = digests[:count]) -> None:
            for digest in chosen:
                ours.engine.run("rollout", digest, {"x0": unseen(8), "times": times()})

        call()
        points.append((count, _median(call, 3)))
    return points, (
        "A batch of 8 rows of each model in turn. A model's weights leave the cache "
        "between its batches, and that is all that more models cost."
    )


def _workers(options: Options, tell: Tell) -> Numbers:
    counts = WORKERS[:1] if options.quick else WORKERS
    rates = {count: asyncio.run(_rate(options, count)) for count in counts}
    rows = [
        (count, number(rate), rate / (count * rates[1]))
        for count, rate in rates.items()
    ]
    found: Numbers = {
        "table": {
            "columns": ["workers", "rows/s", "of linear"],
            "rows": rows,
        },
        "notes": [
            f"Batches of {_BATCH_ROWS} rows, throughput mode, as many in flight as the "
            "executor allows, by the clock. One worker computes the tiles of a batch "
            "on all cores already: a second one gains where it has cores of its own."
        ],
    }
    if len(rates) > 1:
        found["value"] = spread([rates[2] / rates[1]])
    return found


async def _rate(options: Options, workers: int) -> float:
    ours = computing(options)
    with deployed(ours.model) as deployment:
        for number_ in range(workers):
            deployment.worker(f"rollouts-{number_}")
        changes = {"executor": "queue", "rollout_workers": workers}
        executor = QueueExecutor(deployment.settings.model_copy(update=changes))
        arrays = {"x0": unseen(_BATCH_ROWS), "times": times()}
        digest = ours.model.digest

        async def run() -> None:
            deadline = time.monotonic() + READY_WITHIN_S
            await executor.run(Batch("rollout", digest, arrays, deadline, THROUGHPUT))

        await executor.start()
        try:
            # Until each worker is up and has compiled.
            for _ in range(3):
                await asyncio.gather(*(run() for _ in range(4 * workers)))
                await asyncio.sleep(1.0)
            return await _counted(run, executor.concurrency)
        finally:
            await executor.close()


async def _counted(run: Callable[[], Any], concurrency: int) -> float:
    end = time.perf_counter() + _WINDOW_S
    done = 0

    async def keep_busy() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await run()
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(keep_busy() for _ in range(concurrency)))
    return done * _BATCH_ROWS / (time.perf_counter() - began)


def _run(ours: Computing, digest: str, arrays: dict[str, Any]) -> Took:
    call = functools.partial(ours.engine.run, "rollout", digest, arrays, THROUGHPUT)
    call()
    return _median(call, 5)


def _median(call: Callable[[], Any], rounds: int) -> Took:
    taken = [measured(call, 1) for _ in range(rounds)]
    return sorted(taken, key=lambda took: took.cpu_s)[rounds // 2]


def _store(ours: Computing, spec: SurrogateSpec, dataset: Any) -> str:
    resolved, _, _ = resolve(dataset, spec, TRAINING)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.spnode"
        digest = artifact.save(create_surrogate(dataset, resolved, 0), path)
        ours.store(path, digest)
    jax.clear_caches()
    return digest


def _relaxing(states: int) -> Any:
    """Sixteen trajectories of so many states that decay at different rates."""
    draw = np.random.default_rng(0)
    at = np.arange(0.0, 33.0)
    rates = np.geomspace(0.01, 1.0, states)
    starts = draw.uniform(0.5, 1.5, (16, 1, states))
    values = starts * np.exp(-np.outer(at, rates))
    return check_arrays({"states": values, "times": at})


def _draw(records: Records, figure: Any) -> None:
    """One panel for each figure: what one costs over what it costs at least."""
    figure.set_size_inches(9.0, 5.0)
    figure.set_layout_engine("constrained")
    for panel, record in zip(
        figure.subplots(2, 3).flat, [*records.values(), None], strict=False
    ):
        if record is None:
            panel.set_axis_off()
            continue
        if "points" in record.numbers:
            sizes, times_s = np.array(record.numbers["points"]).T
            costs = times_s / sizes
            panel.loglog(sizes, costs / costs.min(), "o-")
            panel.set_ylabel("cost of one over the least")
        else:
            counts, _, shares = zip(*record.numbers["table"]["rows"], strict=True)
            panel.plot(counts, shares, "o-")
            panel.set_xticks(counts)
            panel.set_ylabel("rows/s over linear")
            panel.set_ylim(0, 1.1)
        panel.axhline(1.0, color="0.6", linewidth=0.8, linestyle="--")
        panel.set_xlabel(record.name)


GROUP = Group("scale", "Scale", ABOUT, figures, _draw)
