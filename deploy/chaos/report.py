"""The report of a run, as JSON and as a page."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spnode_core.atomic import replacing

_WHAT = {
    "local": "SQLite, a local folder and Valkey; one gateway and two workers",
    "network": "PostgreSQL, S3 and Valkey; two gateways and four workers, each link "
    "through a proxy of its own",
}


@dataclass(frozen=True)
class Report:
    """What a run did and found.

    Args:
        on: ``local`` or ``network``.
        seed: Of faults and workload.
        minutes: How long faults happened.
        settle_s: How long it took after them until every job had ended.
        faults: Those that happened: ``at_s``, ``kind``, ``seconds``, ``whom``.
        missed: Faults that found nothing to hit, by kind.
        left_out: Kinds that could not be tried, and why.
        jobs: How many by kind and end, ``training succeeded``.
        attempts: How many jobs took how many attempts.
        callers: What the callers saw: answers, refusals, lost connections, ….
        findings: What is wrong.
        restarts: By process.
        commit: Of the source.
        machine: Cores, memory, kind.
        command: As it was typed.
    """

    on: str
    seed: int
    minutes: float
    settle_s: float
    faults: list[dict[str, Any]]
    missed: dict[str, int]
    left_out: dict[str, str]
    jobs: dict[str, int]
    attempts: dict[str, int]
    callers: dict[str, int]
    findings: list[dict[str, Any]]
    restarts: dict[str, int]
    commit: str
    machine: dict[str, Any]
    command: str

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost, doubled or wrong."""
        return not self.findings

    def write(self, folder: Path) -> Path:
        """Write ``chaos-<on>.json`` and ``.md``; give the page's path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"chaos-{self.on}.md"
        with replacing(path.with_suffix(".json")) as file:
            file.write((json.dumps(asdict(self), indent=1) + "\n").encode())
        with replacing(path) as file:
            file.write(self.page().encode())
        return path

    def page(self) -> str:
        """The report for people."""
        kinds = Counter(each["kind"] for each in self.faults)
        found = "\n".join(f"* `{json.dumps(each)}`" for each in self.findings)
        machine = f"{self.machine['cores']} cores, {self.machine['machine']}"
        untried = [f"{kind} ({why})" for kind, why in self.left_out.items()]
        idle = [f"{kind} ({times} times)" for kind, times in self.missed.items()]
        return f"""# Faults: {self.on}

{_WHAT[self.on]}. Seed {self.seed}, {self.minutes:g} minutes of faults, then
{self.settle_s:.0f} s until every job had ended. Made by `{self.command}` at commit
{self.commit}, on {machine}.

**{len(self.faults)} faults of {len(kinds)} kinds, {sum(self.jobs.values())} jobs,
{len(self.findings)} findings.**

## Faults
{_table(("kind", "times"), kinds)}

Could not be tried: {", ".join(untried) or "none"}. Found nothing to hit before the end:
{", ".join(idle) or "none"}.

## Jobs
{_table(("kind and end", "jobs"), self.jobs)}

{_table(("attempts", "jobs"), self.attempts)}

## What the callers saw
{_table(("what", "times"), self.callers)}

## Starts of processes
{_table(("process", "starts"), self.restarts)}

## Findings
{found or "None: every accepted job ended once and rightly, every version loads and"}
{"" if found else "repeats its probe, no answer was wrong and nothing was left behind."}
"""


def _table(head: tuple[str, str], counts: dict[str, int]) -> str:
    rows = [f"| {name} | {counts[name]} |" for name in sorted(counts)]
    return "\n".join([f"| {head[0]} | {head[1]} |", "|---|---|", *rows])
