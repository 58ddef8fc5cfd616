"""How a job goes on, while somebody looks: a bar on a terminal, lines elsewhere."""

import json
import math
import time
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from spnode_client.progress_line import (
    candidates_done,
    done_of,
    fraction_of,
    rows_done,
    time_left,
)
from spnode_client.records import Event, Record

PLAIN_EVERY_S = 5.0


class Meter:
    """A bar on a terminal, a line now and then elsewhere.

    Args:
        console: Where it is shown.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._spoken = 0.0
        self._state = "queued"
        self._stage = ""
        self._said: set[str] = set()
        """The line that was said last, in each form that says the same."""
        self._begun: tuple[str, int, float] | None = None
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                TimeElapsedColumn(),
                console=self._console,
            )
            self._bar.start()
            self._task = self._bar.add_task("queued", total=None, note="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def tell(self, event: Event) -> None:
        """Show what an event says: a log with what was chosen and why, or how far."""
        data = event.data.get("data") or {}
        if event.kind == "status" and "state" in data:
            self.show({"state": data["state"], "progress": None})
        elif event.kind == "progress":
            self.show({"state": self._state, "progress": data})
        elif event.kind == "log" and event.data.get("message"):
            message = str(event.data["message"])
            self._say(f"  {message}", message)
            for each in data.get("choices") or ():
                value = _plain(each["value"])
                self._say(f"    {each['what']}: {value} ({each['why']})")

    def show(self, record: Record) -> None:
        """Show how far a job is, by its state and progress."""
        state, progress = record["state"], record.get("progress") or {}
        self._state = state
        # A sweep counts while it waits; others that are queued again begin anew.
        goes_on = state == "running" or (state == "queued" and "candidates" in progress)
        if not goes_on or not progress:
            progress = {"stage": state, "fraction": 1 if state == "succeeded" else None}
        stage, note = str(progress.get("stage") or state), self._note(progress)
        if self._bar is not None:
            part = fraction_of(progress)
            known: dict[str, Any] = {"completed": part, "total": 1} if part else {}
            self._bar.update(self._task, description=stage, note=note, **known)
        elif stage != self._stage or time.monotonic() - self._spoken > PLAIN_EVERY_S:
            self._spoken = time.monotonic()
            message = note if note == progress.get("message") else ""
            self._say(f"{stage}  {note}".rstrip(), message, f"{stage} {note}")
        self._stage = stage

    def _note(self, progress: Record) -> str:
        counted = rows_done(progress) or candidates_done(progress)
        parts = (
            counted or _iterations(progress) or str(progress.get("message") or ""),
            self._rate(progress),
            _losses(progress),
            time_left(progress),
        )
        return ", ".join(filter(None, parts))

    def _rate(self, progress: Record) -> str:
        """Iterations a second, since this stage of the job was first seen."""
        stage, seconds = progress.get("stage"), progress.get("seconds")
        iteration = progress.get("iteration")
        if not progress.get("iterations") or iteration is None or seconds is None:
            return ""
        begun = self._begun
        if begun is None or begun[0] != stage or begun[1] > iteration:
            self._begun = begun = (str(stage), iteration, seconds)
        passed = seconds - begun[2]
        return f"{(iteration - begun[1]) / passed:.3g}/s" if passed > 0 else ""

    def _say(self, text: str, *same: str) -> None:
        # The log and the progress both tell of a stage that begins.
        if self._bar is None and self._said & {text, *same} - {""}:
            return
        self._said = {text, *same}
        self._console.print(text, markup=False)


def _iterations(progress: Record) -> str:
    done, total = done_of(progress)
    return f"{done} of {total}" if total else ""


def _losses(progress: Record) -> str:
    parts = []
    for name, label in (("loss", "loss"), ("validation_loss", "validation")):
        value = progress.get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            parts.append(f"{label} {value:.2e}")
    return ", ".join(parts)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)
