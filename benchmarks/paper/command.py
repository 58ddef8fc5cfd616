"""``reproduce``: measure what is not stored, then write tables, figures, the index."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.paper import (
    ablation,
    kuramoto_sivashinsky,
    noise,
    robertson,
    transient_growth,
)
from benchmarks.paper.index import write_index
from benchmarks.paper.machine import commit, machine, versions
from benchmarks.paper.meter import Meter
from benchmarks.paper.report import write_report
from benchmarks.paper.rows import Example, Options, Record, Row
from benchmarks.paper.store import Store

EXAMPLES: dict[str, Example] = {
    module.EXAMPLE.name: module.EXAMPLE
    for module in (
        transient_growth,
        robertson,
        ablation,
        noise,
        kuramoto_sivashinsky,
    )
}
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Request:
    """What to reproduce.

    Args:
        examples: Names among ``EXAMPLES``.
        options: Seeds, size and cache.
        out: Folder of the results.
        command: As the user typed it.
        again: Measure rows that are stored, too.
        keep: Take stored rows of other commits as well.
        only: Measure only rows whose name contains this.
    """

    examples: Sequence[str]
    options: Options
    out: Path
    command: str
    again: bool = False
    keep: bool = False
    only: str = ""


def reproduce(request: Request) -> list[dict[str, Any]]:
    """Run the examples, one after the other.

    Returns:
        The bars of all of them, as they are stored.
    """
    jax.config.update("jax_enable_x64", True)
    source = commit(ROOT)
    judged = []
    for name in request.examples:
        example = EXAMPLES[name]
        store = Store(request.out / f"{name}.json", source, keep=request.keep)
        rows = list(example.rows(request.options))
        try:
            _measure_all(example, store, rows, request)
        finally:
            store.arrange([row.name for row in rows])
            bars = write_report(example, store, rows, request.out)
            write_index(request.out, list(EXAMPLES.values()))
        judged += [asdict(bar) for bar in bars]
    return judged


def _measure_all(
    example: Example, store: Store, rows: list[Row], request: Request
) -> None:
    wanted = [row for row in rows if request.only in row.name]
    todo = [row for row in wanted if request.again or store.find(row) is None]
    if len(wanted) > len(todo):
        told = f"{example.name}: {len(wanted) - len(todo)} of {len(wanted)} rows stored"
        print(told, file=sys.stderr)
    meter = Meter(todo, example.name)
    for row in todo:
        meter.begin(row)
        began = time.monotonic()
        numbers = row.measure(meter.tell)
        record = Record(
            name=row.name,
            settings=json.loads(json.dumps(row.settings)),
            numbers=plain(numbers),
            seconds=round(time.monotonic() - began, 2),
            commit=store.commit,
            command=request.command,
            machine=machine(),
            versions=versions(),
        )
        store.add(record)
        meter.end(row, record)
        # What was compiled for one row serves no other and would pile up.
        jax.clear_caches()


def plain(value: Any) -> Any:
    """Numbers as JSON has them: no arrays; what is not finite becomes null."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    if isinstance(value, np.generic):
        return value.item()
    return value
