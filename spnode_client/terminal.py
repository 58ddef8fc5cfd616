"""How the command line speaks: results on stdout, everything else on stderr.

With ``--json`` stdout carries one JSON document and nothing else.
"""

import contextlib
import json
import math
import re
import sys
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

import numpy as np
import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from spnode_client.calibrations import Calibration
from spnode_client.calls import PATIENCE_S, is_passing
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
from spnode_client.meter import Meter
from spnode_client.records import Dataset, ModelVersion
from spnode_client.results import RolloutResult
from spnode_client.sweeps import Ranking

T = TypeVar("T")
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
STEADY_S = 5.0
"""Who answered for so long is there again: the next time has all its patience."""

# A table is as wide as its cells where that is less.
_PIPE_WIDTH = 100_000
# Controls, but for tabs and ends of lines; and what turns the direction of text.
_CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def harmless(text: str) -> str:
    """Text of others, which may hold what moves a terminal's cursor, or lies."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


class _Console(Console):
    def print(self, *objects: Any, **options: Any) -> None:
        """As rich prints; what is text is made harmless first."""
        told = (harmless(each) if isinstance(each, str) else each for each in objects)
        super().print(*told, **options)


# Between colons of a text of others, as in log:x:5, no picture is meant.
out = _Console(highlight=False, soft_wrap=True, emoji=False)
err = _Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


class UsageError(ClientError):
    """The command was called wrongly; it ends with exit code 2."""


def each_once(option: str, pairs: Iterable[tuple[str, T]]) -> dict[str, T]:
    """What a repeated option says of each name.

    Raises:
        UsageError: It names one twice.
    """
    found: dict[str, T] = {}
    for name, value in pairs:
        check_once(option, name, found)
        found[name] = value
    return found


def check_once(option: str, name: str, known: Container[str]) -> None:
    """Refuse a name that a repeated option has given already.

    Raises:
        UsageError: It is known.
    """
    if name in known:
        raise UsageError(f"{option}: found {name!r} twice; expected it once")


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
    """A table without lines; ids are whole, however narrow a terminal is."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    # Names and texts are their owners': brackets in them are no markup.
    for column in columns:
        table.add_column(Text(harmless(column)), no_wrap=column == "id")
    for row in rows:
        said = ("" if cell is None else harmless(str(cell)) for cell in row)
        table.add_row(*map(Text, said))
    return table


def watch(
    draw: Callable[[], RenderableType],
    every_s: float = 2.0,
    is_over: Callable[[], bool] = lambda: False,
) -> None:
    """Draw something again and again, until Ctrl-C or what it shows is over.

    The last drawing stays, with the error below it, while a gateway starts anew.

    Args:
        draw: Asks the service and gives what it said.
        every_s: How long a drawing stands at least.
        is_over: Whether what was drawn last is the end.

    Raises:
        UsageError: Nobody watches.
        ClientError: The first drawing failed, a later one by more than passes, or
            nothing answers for a minute.
    """
    if not out.is_terminal:
        raise UsageError("--watch: found no terminal; leave it out on a pipe")
    # A console of its own: what is drawn may be captured from the other meanwhile.
    screen = Console(file=out.file, force_terminal=True, width=out.width)
    with (
        contextlib.suppress(KeyboardInterrupt),
        Live(shown := draw(), console=screen, auto_refresh=False) as live,
    ):
        until: float | None = None
        # Of what could not be drawn nobody has seen the end.
        while until is not None or not is_over():
            time.sleep(every_s)
            try:
                shown, until = draw(), None
                live.update(shown, refresh=True)
            except ClientError as error:
                now = time.monotonic()
                until = now + PATIENCE_S if until is None else until
                if not is_passing(error) or now >= until:
                    raise
                said = Text(harmless(f"{error}; trying again"), style="dim")
                live.update(Group(shown, said), refresh=True)


def as_printed(text: Callable[[], None]) -> RenderableType:
    """What would be printed, to be drawn by ``watch``."""
    with out.capture() as captured:
        text()
    return Text.from_ansi(captured.get())


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table; on a pipe its cells are not cut."""
    table = table_of(columns, rows)
    wide = out if out.is_terminal else Console(width=_PIPE_WIDTH, highlight=False)
    wide.print(table)


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """A line for each fact, its name before it."""
    told = list(facts)
    width = max((len(name) for name, _ in told), default=0)
    for name, said in told:
        out.print(f"{name:<{width}}  {said}", markup=False)


def short(number: float | None) -> str:
    """A number in four digits; nothing where there is none."""
    return "" if number is None else f"{number:.4g}"


def counted(count: int, one: str, many: str) -> str:
    """A count in words: ``1 trajectory``, ``2 trajectories``."""
    return f"{count} {one if count == 1 else many}"


def percent(part: float | None) -> str:
    """A part in percent, in two digits or to the whole one; JSON has no infinity."""
    if part is None:
        return "not finite"
    value = 100 * part
    return f"{value:,.0f} %" if 99.5 <= value < 1e6 else f"{value:.2g} %"


def report(error: Exception) -> None:
    """An error in words: what, which field, what was found and expected."""
    lines = str(error).splitlines() or [type(error).__name__]
    err.print("[bold red]error:[/]", Text(harmless(lines[0])))
    for line in lines[1:]:
        err.print(line, markup=False)
    hint = _hint(error)
    if hint:
        err.print(f"[dim]{escape(hint)}[/]")


def follow(job: Job, *, quiet: bool = False) -> Any:
    """Show a job's progress until it ends; give what it made.

    Ctrl-C ends the watching, not the job, and so does a service that gives no answer
    for a minute; both are said.

    Args:
        job: The job.
        quiet: Leave stdout to a JSON document: one line of progress, on a terminal.

    Raises:
        JobFailed: It ended as failed or cancelled.
    """
    try:
        return _patiently(job, job.wait) if quiet else _shown(job)
    except KeyboardInterrupt:
        err.print()
    except ClientError as error:
        if not is_passing(error):
            raise
        report(error)
    err.print(
        f"stopped watching; the job goes on: "
        f"[bold]{connection.program} jobs follow {job.id}[/] shows it, "
        f"[bold]{connection.program} jobs cancel {job.id}[/] ends it"
    )
    raise SystemExit(1)


def _shown(job: Job) -> Any:
    last: str | None = None

    def listen() -> Any:
        nonlocal last
        for event in job.events(last):
            last = event.id or last
            meter.tell(event)
        return job.wait(on_record=meter.show)

    _warn_of_nobody(job)
    with Meter(err) as meter:
        return _patiently(job, listen)


def _warn_of_nobody(job: Job) -> None:
    """Say that a job waits for a worker where none lives that takes it."""
    queue = job.record.get("queue")
    if job.state != "queued" or not queue:
        return
    with contextlib.suppress(ClientError):
        if not job.has_worker():
            also = "; without --gpu any worker takes it" if ".gpu" in queue else ""
            said = f"no worker takes {queue} now: it waits for one{also}"
            err.print(said, markup=False)


def _patiently(job: Job, wait: Callable[[], Any]) -> Any:
    """Wait, also while a gateway starts anew: that long nothing answers."""
    until, answered = None, 0.0
    while True:
        try:
            return wait()
        except ClientError as error:
            if not is_passing(error):
                raise
            now = time.monotonic()
            # Whoever follows for hours meets more than one restart.
            if until is None or now > answered + STEADY_S:
                until = now + PATIENCE_S
            if now >= until:
                raise
            err.print(f"{error}; trying again", markup=False)
        time.sleep(1)
        while not _answers(job, until):
            time.sleep(1)
        answered = time.monotonic()


def _answers(job: Job, until: float) -> bool:
    try:
        job.refresh()
    except ClientError as error:
        if not is_passing(error) or time.monotonic() >= until:
            raise
        return False
    return True


def _hint(error: Exception) -> str:
    if isinstance(error, Unreachable):
        starts = "`./spnode up` starts one here; "
        has_stack = connection.program.startswith("./")
        return f"Is the service up? {starts * has_stack}--url names another."
    if isinstance(error, Forbidden):
        if error.status == HTTPStatus.FORBIDDEN:
            return "A key with that scope comes from who looks after the service."
        return f"Give a key: {connection.program} --key KEY …, or SPNODE_KEY=KEY."
    if isinstance(error, ProblemError) and error.problem.get("request_id"):
        return f"request {error.problem['request_id']}" if error.status >= 500 else ""
    if isinstance(error, JobFailed):
        return (
            f"`{connection.program} jobs show {error.record.get('id')}` has all of it."
        )
    return ""


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
