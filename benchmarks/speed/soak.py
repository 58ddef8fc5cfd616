"""An hour at half of what is possible: does anything grow, or become slower?

A gateway in ``queue`` mode and a rollout worker are driven by an open load, window by
window: single rows as JSON, 64 rows as npz, gradients of 16 rows, each at half of what
callers who wait reach in the beginning. Between some windows a caller runs an errand:
it uploads a dataset, has another one made by a worker of jobs, follows the events of
that job to their end, looks at lists and deletes both. After each window memory, file
handles and threads of all processes are read.
"""

import contextlib
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.paper.machine import commit, machine, versions
from benchmarks.paper.rows import table
from benchmarks.peers.environment import ROOT
from benchmarks.speed.deployment import MODEL, Deployment, Server, deployed, json_body
from benchmarks.speed.figures import Options
from benchmarks.speed.load import drive, get, post
from benchmarks.speed.open_load import send
from benchmarks.speed.robertson import find_model, times, unseen
from spnode_client import Client, ClientError
from spnode_client.arrays import pack
from spnode_client.records import Dataset
from spnode_core.atomic import replacing
from spnode_core.dataset import save_dataset
from spnode_core.plots import png
from spnode_core.systems import generate

WARM_UP = 0.2
"""Part of the time in which caches fill: it counts for nothing."""
MEMORY_GROWTH = 1.05
LATENCY_GROWTH = 1.5
"""The noise of a shared machine; what accumulates shows in memory first."""
_CONNECTIONS = 8
_ERRAND_EVERY = 3


@dataclass(frozen=True)
class Window:
    """What a window showed.

    Args:
        at_s: When it ended, since the first began.
        kind: What was asked.
        rate: Requests a second.
        failures: Answers that are not 200.
        p50_s: Median of the latencies.
        p99_s: The slowest hundredth.
        memory_mb: Resident memory by process, in 10^6 bytes.
        handles: Open files and sockets by process.
        threads: By process.
    """

    at_s: float
    kind: str
    rate: float
    failures: int
    p50_s: float
    p99_s: float
    memory_mb: dict[str, float]
    handles: dict[str, int]
    threads: dict[str, int]


@dataclass(frozen=True)
class Soak:
    """A run.

    Args:
        minutes: How long it was to be.
        command: By which.
        windows: In their order.
        errands: How many came to their end.
        failed_errands: How many did not.
    """

    minutes: float
    command: str
    windows: list[Window]
    errands: int = 0
    failed_errands: int = 0

    @property
    def warm(self) -> list[Window]:
        """The windows that count."""
        return self.windows[int(len(self.windows) * WARM_UP) :]

    def findings(self) -> list[str]:
        """What grew, or went wrong; nothing where all is well."""
        warm = self.warm
        third = max(1, len(warm) // 3)
        first, last = warm[:third], warm[-third:]
        found = []
        if failures := sum(each.failures for each in self.windows):
            found.append(f"{failures} answers were not 200")
        if self.failed_errands:
            found.append(f"{self.failed_errands} errands failed")
        for name in first[0].memory_mb:
            before, after = (
                statistics.median(each.memory_mb[name] for each in part)
                for part in (first, last)
            )
            if after > MEMORY_GROWTH * before:
                found.append(f"{name} grew from {before:.0f} to {after:.0f} MB")
            for what in ("handles", "threads"):
                low, high = (
                    max(getattr(each, what)[name] for each in part)
                    for part in (first, last)
                )
                if high > low:
                    found.append(f"{name} went from {low} to {high} {what}")
        for kind in dict.fromkeys(each.kind for each in warm):
            before, after = (
                statistics.median([e.p99_s for e in part if e.kind == kind] or [0.0])
                for part in (first, last)
            )
            if before and after > LATENCY_GROWTH * before:
                change = f"from {1e3 * before:.1f} to {1e3 * after:.1f} ms"
                found.append(f"p99 of {kind} went {change}")
        return found

    def write(self, folder: Path) -> Path:
        """Write ``soak.json``, ``.md`` and ``.png``; give the page's path."""
        folder.mkdir(parents=True, exist_ok=True)
        record = {
            **asdict(self),
            "findings": self.findings(),
            "commit": commit(ROOT),
            "machine": machine(),
            "versions": versions(),
        }
        with replacing(folder / "soak.json") as file:
            file.write(json.dumps(record, indent=1).encode())
        with replacing(folder / "soak.png") as file:
            file.write(png(lambda figure: _draw(figure, self.windows)))
        page = folder / "soak.md"
        with replacing(page) as file:
            file.write(_page(self, record).encode())
        return page


def run(
    minutes: float, command: str, folder: Path, tell: Callable[[str], None]
) -> Soak:
    """Soak a deployment of its own.

    Args:
        minutes: How long.
        command: What was typed, for the report.
        folder: Where the measured model is kept.
        tell: Shows how far it is.
    """
    jax.config.update("jax_enable_x64", True)
    options = Options(quick=True, folder=folder)
    with deployed(find_model(options, lambda _: None)) as deployment:
        processes = {"worker": deployment.worker()}
        processes["job worker"] = deployment.job_worker()
        gateway = deployment.gateway(executor="queue")
        gateway.wait_until_quiet()
        kinds = _kinds(deployment)
        rates = {}
        for kind, request in kinds.items():
            # Programs are compiled when they are first asked for.
            drive(gateway.port, request, connections=_CONNECTIONS, seconds=10.0)
            load = drive(gateway.port, request, connections=_CONNECTIONS, seconds=5.0)
            rates[kind] = load.rate / 2
            tell(f"{kind}: {load.rate:.0f} requests a second; soaked with half of it")
        # A pool of connections holds as many as were ever needed at once, up to its
        # size: a second one an hour later, for two threads that met, is no leak.
        listing = get("/v1/models", deployment.headers("application/json"))
        drive(gateway.port, listing, connections=2 * _CONNECTIONS, seconds=5.0)
        processes = {"gateway": gateway, **processes}
        with _errands(deployment, gateway) as errand:
            errand.run()
            windows = _windows(minutes, kinds, rates, processes, errand, tell)
            return Soak(minutes, command, windows, errand.done, errand.failed)


class _Errand:
    """What a caller does beside rollouts, again and again.

    Args:
        client: Of the gateway.
        file: What it uploads.
    """

    def __init__(self, client: Client, file: Path) -> None:
        self.done = self.failed = 0
        self._client = client
        self._file = file

    def run(self) -> None:
        """Run it once."""
        client = self._client
        try:
            sent = client.datasets.upload(self._file)
            job = client.jobs.submit(
                {"kind": "dataset", "system": "robertson", "trajectories": 2}
            )
            events = list(job.events())
            made = job.wait(on_record=lambda _: None)
            assert isinstance(made, Dataset), "the job is to make one"
            listed = {each.id for each in client.datasets.list()}
            client.jobs.list()
            client.models.list()
            for each in (sent.id, made.id):
                client.datasets.delete(each)
        except ClientError:
            self.failed += 1
            return
        is_well = len(events) > 1 and {sent.id, made.id} <= listed
        self.done, self.failed = self.done + is_well, self.failed + (not is_well)


@contextlib.contextmanager
def _errands(deployment: Deployment, gateway: Server) -> Iterator[_Errand]:
    file = deployment.settings.data_folder / "errand.npz"
    save_dataset(generate("robertson", 3), file)
    with Client(f"http://127.0.0.1:{gateway.port}", deployment.key) as client:
        yield _Errand(client, file)


def _windows(
    minutes: float,
    kinds: dict[str, bytes],
    rates: dict[str, float],
    processes: dict[str, Server],
    errand: _Errand,
    tell: Callable[[str], None],
) -> list[Window]:
    seconds = 60.0 * minutes
    length = min(10.0, seconds / 15)
    windows: list[Window] = []
    for number in range(round(seconds / length)):
        if number % _ERRAND_EVERY == 0:
            errand.run()
        kind = list(kinds)[number % len(kinds)]
        port = processes["gateway"].port
        answers = send(port, kinds[kind], rate=rates[kind], seconds=length)
        p50, p99 = np.percentile([each.latency_s for each in answers], [50, 99])
        windows.append(
            Window(
                (number + 1) * length,
                kind,
                rates[kind],
                sum(each.status != 200 for each in answers),
                float(p50),
                float(p99),
                {name: each.rss_mb() for name, each in processes.items()},
                {name: each.handles() for name, each in processes.items()},
                {name: each.threads() for name, each in processes.items()},
            )
        )
        if number % 30 == 29:
            last = windows[-1]
            tell(f"{last.at_s / 60:.0f} min: {last.memory_mb}, {last.handles}")
    return windows


def _kinds(deployment: Deployment) -> dict[str, bytes]:
    npz = deployment.headers("application/x-npz")
    last = times()[-1:]
    rows = pack({"model": MODEL, "x0": unseen(64), "times": times()})
    gradient = pack(
        {
            "model": MODEL,
            "x0": unseen(16),
            "times": last,
            "cotangents": np.ones((16, 1, unseen(1).shape[1])),
        }
    )
    return {
        "one row": post(
            "/v1/rollout", json_body(), deployment.headers("application/json")
        ),
        "64 rows": post("/v1/rollout", rows, npz),
        "16 gradients": post("/v1/rollout/vjp", gradient, npz),
    }


def _page(soak: Soak, record: dict[str, Any]) -> str:
    warm = soak.warm
    names = list(warm[0].memory_mb)
    rows = [
        (
            name,
            *(f"{each.memory_mb[name]:.0f}" for each in (warm[0], warm[-1])),
            *(str(each.handles[name]) for each in (warm[0], warm[-1])),
            *(str(each.threads[name]) for each in (warm[0], warm[-1])),
        )
        for name in names
    ]
    heads = ("", "MB first", "last", "handles first", "last", "threads first", "last")
    findings = record["findings"] or ["nothing grew, nothing became slower"]
    asked = sum(
        round(each.rate * soak.minutes * 60 / len(soak.windows))
        for each in soak.windows
    )
    kinds = [
        (
            kind,
            f"{mine[0].rate:.0f}",
            *(_ms([getattr(e, q) for e in mine]) for q in ("p50_s", "p99_s")),
        )
        for kind in dict.fromkeys(each.kind for each in warm)
        if (mine := [each for each in warm if each.kind == kind])
    ]
    parts = [
        "# Soak",
        (__doc__ or "").strip(),
        f"**{'; '.join(findings)}.** {asked:,} requests in {soak.minutes:g} minutes, "
        f"of which the first {WARM_UP:.0%} are warm-up; {soak.errands} errands.",
        table(heads, rows),
        table(("what", "requests a second", "median, ms", "p99, ms"), kinds),
        "![Soak](soak.png)",
        f"Made by `{soak.command}` at commit {record['commit']}, on "
        f"{record['machine']['cores']} CPU cores that the load generator shared. "
        f"Bounds: memory {MEMORY_GROWTH:g}x and p99 {LATENCY_GROWTH:g}x from the first "
        "third after warm-up to the last, medians; no more handles or threads.",
    ]
    return "\n\n".join(parts) + "\n"


def _ms(seconds: Sequence[float]) -> str:
    return f"{1e3 * statistics.median(seconds):.1f}"


def _draw(figure: Any, windows: Sequence[Window]) -> None:
    figure.set_size_inches(7.2, 6.0)
    above, middle, below = figure.subplots(3, 1, sharex=True)
    at = [each.at_s / 60 for each in windows]
    for name in windows[0].memory_mb:
        above.plot(at, [each.memory_mb[name] for each in windows], label=name)
        middle.plot(at, [each.handles[name] for each in windows], label=name)
    for kind in dict.fromkeys(each.kind for each in windows):
        mine = [each for each in windows if each.kind == kind]
        minutes = [each.at_s / 60 for each in mine]
        below.plot(minutes, [1e3 * each.p99_s for each in mine], label=kind)
    for axes, label in ((above, "MB"), (middle, "file handles"), (below, "p99, ms")):
        axes.set_ylabel(label)
        axes.legend()
        axes.set_ylim(bottom=0)
    below.set_xlabel("minutes")
