"""A run: the deployment, the workload, the faults of the schedule, then the audit."""

import threading
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
from deploy.chaos.audit import Audit, Finding
from deploy.chaos.clocks import can_step
from deploy.chaos.deployment import TIMES, Deployment, Times, local
from deploy.chaos.faults import LOCAL, NETWORK, STEP_CLOCK, Begin, Fault, Hit
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
    opened, there = PLACES[request.on]
    known = {kind: there[kind] for kind in request.kinds or there}
    left_out = {}
    if STEP_CLOCK in known and not can_step():
        del known[STEP_CLOCK]
        left_out[STEP_CLOCK] = (
            "libfaketime does not run here, or is missing: `./spnode check` installs it"
        )
        say(f"left out: {STEP_CLOCK}: {left_out[STEP_CLOCK]}")
    say(f"starting ({request.on}) in {request.folder}")
    times = {**TIMES, "orphan_seconds": request.orphan_seconds}
    with opened(request.folder, request.compiled, times) as deployment:
        workload = Workload(
            deployment.urls, deployment.key, request.seed, request.folder
        )
        say("computing every answer once")
        workload.prepare(request.jobs)
        workload.start()
        faults = _hurt(deployment, request, known, say)
        say("no more faults: waiting for the jobs to end")
        began = time.monotonic()
        _meanwhile(deployment, workload.stop)
        deployment.wait_until_ready()
        _meanwhile(deployment, lambda: workload.settle(SETTLE_S))
        settle_s = time.monotonic() - began
        # What the last attempts left may be swept now.
        _meanwhile(deployment, lambda: time.sleep(2 * request.orphan_seconds))
        say("auditing")
        jobs, findings = _audit(deployment, workload, request)
        workload.close()
        starts = {name: each.starts for name, each in deployment.processes.items()}
    return Report(
        on=request.on,
        seed=request.seed,
        minutes=request.minutes,
        settle_s=round(settle_s, 1),
        faults=faults.done,
        missed=dict(faults.missed),
        left_out=left_out,
        jobs=_counts(jobs, "kind", "state"),
        attempts=_counts(jobs, "attempt"),
        callers=dict(sorted(workload.tally.seen.items())),
        findings=workload.tally.wrong + findings,
        restarts=starts,
        commit=commit(ROOT),
        machine=machine(),
        command=request.command,
    )


def _hurt(
    deployment: Deployment, request: Request, known: Mapping[str, Fault], say: Say
) -> "Faults":
    """Make the faults of the request's schedule happen; give what happened."""
    run_s = request.minutes * 60
    lengths = {kind: seconds for kind, (_, seconds) in known.items()}
    schedule = draw(request.seed, run_s, lengths, every_s=request.every_s)
    begins = {kind: begin for kind, (begin, _) in known.items()}
    faults = Faults(deployment, begins, schedule, say)
    faults.run(run_s)
    return faults


def _audit(
    deployment: Deployment, workload: Workload, request: Request
) -> tuple[list[Mapping[str, Any]], list[Finding]]:
    """The rows of all jobs, and what is wrong."""
    database = Database(deployment.settings.database_url)
    try:
        audit = Audit(
            database,
            Blobs(deployment.settings.store_url),
            workload.submissions,
            2 * request.orphan_seconds,
            sorted(request.folder.glob("*/work")),
            workload.uploads,
            workload.moves,
        )
        return list(audit.jobs.values()), audit.findings()
    finally:
        database.close()


def _meanwhile(deployment: Deployment, work: Callable[[], None]) -> None:
    """Keep the deployment up until some work is done.

    This thread starts the processes: they end with the thread that started them.
    """
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive():
        deployment.keep_up()
        thread.join(_TICK_S)


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


def _counts(rows: Any, *names: str) -> dict[str, int]:
    counts = Counter(" ".join(str(row[name]) for name in names) for row in rows)
    return dict(sorted(counts.items()))
