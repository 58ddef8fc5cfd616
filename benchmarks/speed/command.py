"""``bench``: measure groups of figures, then write their pages and the index."""

import json
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.paper.command import plain
from benchmarks.paper.machine import commit, machine, processor, versions
from benchmarks.paper.meter import Meter
from benchmarks.paper.rows import Record
from benchmarks.paper.store import Store
from benchmarks.speed import (
    claims,
    cold_start,
    doors,
    overload,
    rollout,
    scale,
    serving,
    training,
)
from benchmarks.speed.figures import Figure, Group, Options
from benchmarks.speed.report import write_index, write_report
from services.devices import start_backend

GROUPS: dict[str, Group] = {
    module.GROUP.name: module.GROUP
    for module in (
        *(rollout, serving, doors, training, cold_start, scale, claims),
        overload,
    )
}
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Request:
    """What to measure.

    Args:
        groups: Names among ``GROUPS``.
        options: Size, peers, folder.
        out: Folder of the results.
        command: As the user typed it.
        only: Measure only figures whose name contains this.
    """

    groups: Sequence[str]
    options: Options
    out: Path
    command: str
    only: str = ""


def bench(request: Request) -> list[dict[str, Any]]:
    """Measure the groups, one figure after the other; each is stored when it is done.

    Returns:
        What was found in all of them, as it is stored.
    """
    # As processes that serve do, for all contestants of this process.
    start_backend()
    found = []
    for name in request.groups:
        group = GROUPS[name]
        store = Store(request.out / f"{name}.json", commit(ROOT), keep=True)
        with ExitStack() as stack:
            figures = list(group.figures(request.options, stack))
            try:
                _measure_all(group, store, figures, request)
            finally:
                store.arrange([figure.name for figure in figures])
                bars = write_report(group, store, request.out)
                write_index(request.out, list(GROUPS.values()))
        found += [asdict(bar) for bar in bars]
    return found


def _measure_all(
    group: Group, store: Store, figures: list[Figure], request: Request
) -> None:
    rows = [figure.row for figure in figures if request.only in figure.name]
    meter = Meter(rows, group.name)
    for row in rows:
        meter.begin(row)
        load, began = os.getloadavg()[0], time.monotonic()
        numbers = row.measure(meter.tell)
        where = {**machine(), **processor(), "load": [load, os.getloadavg()[0]]}
        record = Record(
            name=row.name,
            settings=json.loads(json.dumps(row.settings)),
            numbers=plain(numbers),
            seconds=round(time.monotonic() - began, 2),
            commit=store.commit,
            command=request.command,
            machine=where,
            versions=versions(),
        )
        store.add(record)
        meter.end(row, record)
