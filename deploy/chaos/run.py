"""A run: the deployment, the workload, the faults of the schedule, then the audit."""

import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from benchmarks.paper.machine import commit, machine
from deploy.chaos.audit import Audit
from deploy.chaos.deployment import TIMES, Deployment, Times, local
from deploy.chaos.faults import LOCAL, NETWORK, Begin, Fault, Hit
from deploy.chaos.network import network
from deploy.chaos.report import Report
from deploy.chaos.schedule import Planned, draw
from deploy.chaos.workload import WEIGHTS, Workload
from deploy.folder import ROOT
from services.blobs import Blobs
from services.database.engine import Database
from spnode_client.errors import DomainWarning

Opened = Callable[[Path, Path, Times], AbstractContextManager[Deployment]]
PLACES: dict[str, tuple[Opened, Mapping[str, Fault]]] = {
    "local": (local, LOCAL),
    "network": (network, NETWORK),
}
EVERY_S = 9.0
SETTLE_S = 300.0
_TICK_S = 0.1
_AGAIN_S = 1.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What to run.

    Args:
        minutes: How long faults happen.
        seed: Of faults and workload.
        on: ``local`` or ``network``.
        folder: An empty folder for everything that runs, logs too.
        command: As it was typed.
        compiled: Where compiled programs are kept from one run to the next.
        kinds: Only these faults; all of the deployment by default.
        jobs: Kinds of jobs.
        every_s: Mean time between two faults.
        orphan_seconds: After which time an orphan is swept.
    """

    minutes: float
    seed: int
    on: str
    folder: Path
    command: str
    compiled: Path
    kinds: tuple[str, ...] = ()
    jobs: tuple[str, ...] = tuple(WEIGHTS)
    every_s: float = EVERY_S
    orphan_seconds: float = 20.0


def run(request: Request, say: Say) -> Report:
    """Run it all; the deployment has ended when this returns.

    Args:
        request: What to run.
        say: Told what happens, a line at a time.

    Raises:
        deploy.stack.StackError: The deployment did not start.
    """
    jax.config.update("jax_enable_x64", True)
    warnings.simplefilter("ignore", DomainWarning)
    run_s = request.minutes * 60
    opened, faults_there = PLACES[request.on]
    kinds = request.kinds or tuple(faults_there)
    known = {kind: faults_there[kind] for kind in kinds}
    lengths = {kind: seconds for kind, (_, seconds) in known.items()}
    schedule = draw(request.seed, run_s, lengths, every_s=request.every_s)
    begins = {kind: begin for kind, (begin, _) in known.items()}
    say(f"starting ({request.on}) in {request.folder}")
    times = {**TIMES, "orphan_seconds": request.orphan_seconds}
    with opened(request.folder, request.compiled, times) as deployment:
        workload = Workload(
            deployment.urls, deployment.key, request.seed, request.folder
        )
        say("computing every answer once")
        workload.prepare(request.jobs)
        workload.start()
        faults = Faults(deployment, begins, schedule, say)
        faults.run(run_s)
        workload.stop()
        say("no more faults: waiting for the jobs to end")
        began = time.monotonic()
        deployment.wait_until_ready()
        workload.settle(SETTLE_S)
        settle_s = time.monotonic() - began
        # What the last attempts left may be swept now.
        end = time.monotonic() + 2 * request.orphan_seconds
        while time.monotonic() < end:
            deployment.keep_up()
            time.sleep(_TICK_S)
        say("auditing")
        database = Database(deployment.settings.database_url)
        blobs = Blobs(deployment.settings.store_url)
        orphan_s = 2 * request.orphan_seconds
        folders = sorted(request.folder.glob("*/work"))
        audit = Audit(database, blobs, workload.submissions, orphan_s, folders)
        findings = workload.tally.wrong + audit.findings()
        database.close()
        workload.close()
        starts = {name: each.starts for name, each in deployment.processes.items()}
    return Report(
        on=request.on,
        seed=request.seed,
        minutes=request.minutes,
        settle_s=round(settle_s, 1),
        faults=faults.done,
        missed=dict(faults.missed),
        jobs=_ends(audit.jobs.values(), "kind", "state"),
        attempts=_ends(audit.jobs.values(), "attempt"),
        callers=dict(sorted(workload.tally.seen.items())),
        findings=findings,
        restarts=starts,
        commit=commit(ROOT),
        machine=machine(),
        command=request.command,
    )


@dataclass
class Faults:
    """Makes the faults of a schedule happen, and end.

    Args:
        deployment: What they hit; it is kept up meanwhile.
        begins: How each kind begins.
        schedule: The faults in order.
        say: Told of each.
    """

    deployment: Deployment
    begins: Mapping[str, Begin]
    schedule: tuple[Planned, ...]
    say: Say
    done: list[dict[str, Any]] = field(default_factory=list)
    missed: Counter[str] = field(default_factory=Counter)
    _ends: list[tuple[float, Hit]] = field(default_factory=list)

    def run(self, run_s: float) -> None:
        """Return after so many seconds, every fault ended."""
        began = time.monotonic()
        waiting = [(each.at_s, each) for each in self.schedule]
        try:
            while (now := time.monotonic() - began) < run_s:
                self.deployment.keep_up()
                self._end(now)
                due = [each for each in waiting if each[0] <= now]
                for each in due:
                    waiting.remove(each)
                    if not self._begin(each[1], now):
                        waiting.append((now + _AGAIN_S, each[1]))
                time.sleep(_TICK_S)
        finally:
            self._end(float("inf"))
            self.missed.update(each.kind for _, each in waiting)

    def _begin(self, planned: Planned, now: float) -> bool:
        hit = self.begins[planned.kind](self.deployment, planned)
        if hit is None:
            return False
        self._ends.append((now + planned.seconds, hit))
        told = {"at_s": round(now, 1), "kind": planned.kind, "whom": hit.whom}
        self.done.append({**told, "seconds": planned.seconds})
        self.say(f"{now:7.1f} s  {planned.kind}: {hit.whom}, {planned.seconds:g} s")
        return True

    def _end(self, now: float) -> None:
        for each in [each for each in self._ends if each[0] <= now]:
            self._ends.remove(each)
            each[1].end()


def _ends(rows: Any, *names: str) -> dict[str, int]:
    counts = Counter(" ".join(str(row[name]) for name in names) for row in rows)
    return dict(sorted(counts.items()))
