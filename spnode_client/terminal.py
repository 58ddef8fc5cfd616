"""How the command line speaks: results on stdout, everything else on stderr.

With ``--json`` stdout carries one JSON document and nothing else.
"""

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from spnode_client.calibrations import Calibration
from spnode_client.comparisons import Comparison
from spnode_client.connection import connection
from spnode_client.errors import (
    ClientError,
    Forbidden,
    JobFailed,
    ProblemError,
    Unreachable,
)
from spnode_client.jobs import Job
from spnode_client.progress_line import rows_done
from spnode_client.records import Dataset, ModelVersion
from spnode_client.results import RolloutResult
from spnode_client.sweeps import Ranking

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
PLAIN_EVERY_S = 5.0

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


class UsageError(ClientError):
    """The command was called wrongly; it ends with exit code 2."""


def emit(value: Any, as_json: bool, text: Callable[[], None]) -> None:
    """Print a result: as JSON, or in words by calling ``text``."""
    if as_json:
        print_json(value)
    else:
        text()


def print_json(value: Any) -> None:
    """One JSON document on stdout; what is not finite becomes null."""
    sys.stdout.write(json.dumps(_finite(value), indent=2, default=plain) + "\n")


def plain(value: Any) -> Any:
    """Records and arrays as JSON sees them."""
    if isinstance(value, (Calibration, Comparison, Dataset, ModelVersion, Ranking)):
        return value.record
    if isinstance(value, (Job, RolloutResult)):
        return value.record
    if isinstance(value, np.ndarray):
        return _finite(value.tolist())
    return str(value)


def table_of(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """A table without lines."""
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    return table


def watch(draw: Callable[[], Table], every_s: float = 2.0) -> None:
    """Draw a table again and again, until Ctrl-C.

    Raises:
        UsageError: Nobody watches.
    """
    if not out.is_terminal:
        raise UsageError("--watch: found no terminal; leave it out on a pipe")
    with (
        contextlib.suppress(KeyboardInterrupt),
        Live(draw(), console=out, auto_refresh=False) as live,
    ):
        while True:
            time.sleep(every_s)
            live.update(draw(), refresh=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table; on a pipe its cells are not cut."""
    table = table_of(columns, rows)
    wide = out if out.is_terminal else Console(width=200, highlight=False)
    wide.print(table)


def short(number: float | None) -> str:
    """A number in four digits; nothing where there is none."""
    return "" if number is None else f"{number:.4g}"


def report(error: Exception) -> None:
    """An error in words: what, which field, what was found and expected."""
    lines = str(error).splitlines() or [type(error).__name__]
    err.print(f"[bold red]error:[/] {_escape(lines[0])}")
    for line in lines[1:]:
        err.print(_escape(line))
    hint = _hint(error)
    if hint:
        err.print(f"[dim]{_escape(hint)}[/]")


def follow(job: Job, *, quiet: bool = False) -> Any:
    """Show a job's progress until it ends; give what it made.

    Ctrl-C ends the watching, not the job, and says so.

    Raises:
        JobFailed: It ended as failed or cancelled.
    """
    try:
        if quiet:
            return job.wait()
        with _Meter() as meter:
            for event in job.events():
                if event.kind == "metrics":
                    meter.show(job.refresh().record.get("progress") or {})
                else:
                    meter.tell(event.kind, event.data)
        return job.wait()
    except KeyboardInterrupt:
        err.print(
            f"\nstopped watching; the job goes on: "
            f"[bold]{connection.program} jobs follow {job.id}[/] shows it, "
            f"[bold]{connection.program} jobs cancel {job.id}[/] ends it"
        )
        raise SystemExit(1) from None


class _Meter:
    """A bar on a terminal, a line now and then elsewhere."""

    def __enter__(self) -> "_Meter":
        self._spoken = 0.0
        self._stage = ""
        self._bar = None
        if err.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=err,
            )
            self._bar.start()
            self._task = self._bar.add_task("queued", total=None, note="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def tell(self, kind: str, data: Mapping[str, Any]) -> None:
        """Say what happened, or that the state changed."""
        message = str(data.get("message") or "")
        if kind == "log" and message:
            err.print(f"  {_escape(message)}")
        elif kind == "status":
            self.show({"stage": (data.get("data") or {}).get("state") or message})

    def show(self, progress: Mapping[str, Any]) -> None:
        """Show how far it is."""
        stage = str(progress.get("stage") or "running")
        done, total = done_of(progress)
        note = rows_done(dict(progress)) or _losses(progress)
        if self._bar is not None:
            self._bar.update(
                self._task,
                description=stage,
                completed=done or 0,
                total=total,
                note=note,
            )
        elif stage != self._stage or time.monotonic() - self._spoken > PLAIN_EVERY_S:
            self._spoken = time.monotonic()
            place = f" {done} of {total}" if total and "rows" not in note else ""
            err.print(f"{stage}{place}  {note}".rstrip())
        self._stage = stage


def done_of(progress: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Iterations, rows or candidates that are done, of how many."""
    if progress.get("rows_total"):
        return progress["rows"], progress["rows_total"]
    if total := progress.get("candidates"):
        states = ("succeeded", "failed", "cancelled")
        return sum(progress[state] for state in states), total
    return progress.get("iteration"), progress.get("iterations") or None


def _losses(values: Mapping[str, Any]) -> str:
    parts = []
    for name, label in (("loss", "loss"), ("validation_loss", "validation")):
        value = values.get(name)
        if isinstance(value, (int, float)) and math.isfinite(value):
            parts.append(f"{label} {value:.2e}")
    return "  ".join(parts)


def _hint(error: Exception) -> str:
    if isinstance(error, Unreachable):
        return "Is the service up? `./spnode up` starts one here; --url names another."
    if isinstance(error, Forbidden):
        return "Give a key with --key or SPNODE_KEY."
    if isinstance(error, ProblemError) and error.problem.get("request_id"):
        return f"request {error.problem['request_id']}" if error.status >= 500 else ""
    if isinstance(error, JobFailed):
        return (
            f"`{connection.program} jobs show {error.record.get('id')}` has all of it."
        )
    return ""


def _escape(text: str) -> str:
    return text.replace("[", "\\[")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
