"""What an example consists of: rows to measure, bars to reach, tables and a figure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spnode_core import Progress

Numbers = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What the caller of ``reproduce`` chose.

    Args:
        seeds: One row of each kind for every seed.
        quick: A small version, for continuous integration.
        cache: Folder for reference solutions that take long to make.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    quick: bool = False
    cache: Path = Path(".spnode/reproduce")


@dataclass(frozen=True)
class Row:
    """One measurement.

    Args:
        name: Unique in its example, in words.
        settings: JSON that says what is measured; a stored row with other settings is
            measured anew.
        measure: Returns the numbers, JSON; is given a callable that shows progress.
        cost: Time it takes, relative to the other rows, for the estimate of what is
            left.
    """

    name: str
    settings: dict[str, Any]
    measure: Callable[[Callable[[Progress], None]], Numbers]
    cost: float = 1.0


@dataclass(frozen=True)
class Bar:
    """A number that was asked for, and whether it was reached.

    Args:
        what: What is measured.
        paper: What the paper reports, in words.
        asked: The bar, in words.
        found: What we measured, in words.
        passed: Whether the bar is reached; None where rows are still missing.
    """

    what: str
    paper: str
    asked: str
    found: str
    passed: bool | None


@dataclass(frozen=True)
class Record:
    """A stored row: what was measured, how, where and when."""

    name: str
    settings: dict[str, Any]
    numbers: Numbers
    seconds: float
    commit: str
    command: str
    machine: dict[str, Any]
    versions: dict[str, str]


Records = dict[str, Record]


@dataclass(frozen=True)
class Example:
    """One example of the paper.

    Args:
        name: As on the command line.
        title: As a heading.
        about: What is done and which of the paper's settings are used, Markdown.
        rows: The rows for some options.
        tables: Markdown from the records.
        bars: What was asked for, from the records.
        draw: Draws the figure from the records onto a matplotlib figure.
    """

    name: str
    title: str
    about: str
    rows: Callable[[Options], Sequence[Row]]
    tables: Callable[[Records], str]
    bars: Callable[[Records], list[Bar]]
    draw: Callable[[Records, Any], None]


def select(records: Records, **settings: Any) -> list[Record]:
    """The records whose settings have these values, in the order of the example."""
    return [
        record
        for record in records.values()
        if all(record.settings.get(k) == v for k, v in settings.items())
    ]


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; numbers are written with three significant digits."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(text(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def text(value: Any) -> str:
    """A number as a person writes it; a list as its parts."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(text(each) for each in value)
    return str(value)


def worst(values: Sequence[float]) -> str:
    """The largest of some numbers, and how many there are."""
    return f"{max(values):.2e} (worst of {len(values)})" if values else "not run"


def at_most(values: Sequence[float], bar: float) -> bool | None:
    """Whether all stay at or below a bar; None without values."""
    return max(values) <= bar if values else None
