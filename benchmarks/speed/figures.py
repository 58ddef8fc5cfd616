"""What a group consists of: figures, each with what it is held against and its bar."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.paper.rows import Numbers, Record, Records, Row
from spnode_core import Progress

Tell = Callable[[Progress], None]


@dataclass(frozen=True)
class Options:
    """What the caller of ``bench`` chose.

    Args:
        peers: Measure other software too, which is installed for it.
        quick: A small version with an untrained model, for continuous integration.
        folder: Where the model and the peers' environments are kept.
    """

    peers: bool = False
    quick: bool = False
    folder: Path = Path(".spnode/bench")


@dataclass(frozen=True)
class Figure:
    """One figure.

    Args:
        name: What is measured, in words; unique in its group.
        against: The peer or the limit.
        measure: Gives ``value``, the spread of the figure over the rounds; ``ours`` and
            ``theirs`` in words; ``notes``, sentences; and whatever else is worth
            keeping. A sweep gives ``table`` (columns, rows).
        at_least: The bar, where more is better.
        at_most: The bar, where less is better.
        unit: Of the value; ``x`` for a ratio.
        settings: What is measured, as JSON.
        cost: Time that it takes, relative to the others.
    """

    name: str
    against: str
    measure: Callable[[Tell], Numbers]
    at_least: float | None = None
    at_most: float | None = None
    unit: str = "x"
    settings: dict[str, Any] = field(default_factory=dict)
    cost: float = 1.0

    @property
    def row(self) -> Row:
        """The same as a row of a store."""
        bar = {"at_least": self.at_least, "at_most": self.at_most, "unit": self.unit}
        settings = {"against": self.against, **bar, **self.settings}
        return Row(self.name, settings, self.measure, self.cost)


@dataclass(frozen=True)
class Group:
    """Figures that are measured and told together.

    Args:
        name: As on the command line.
        title: As a heading.
        about: How it is measured, Markdown.
        figures: Those for some options; what they start is closed with the stack, when
            all are measured.
        draw: Draws them from their records onto a matplotlib figure, if anything does.
    """

    name: str
    title: str
    about: str
    figures: Callable[[Options, ExitStack], Sequence[Figure]]
    draw: Callable[[Records, Any], None] | None = None


@dataclass(frozen=True)
class Bar:
    """A figure as it was found, and whether it reaches what was asked.

    Args:
        what: What is measured.
        against: The peer or the limit.
        asked: The bar, in words.
        found: Median and spread, in words.
        passed: Whether the bar is reached; None where none was set.
    """

    what: str
    against: str
    asked: str
    found: str
    passed: bool | None


def bars(records: Records) -> list[Bar]:
    """What was found, in the order of the records."""
    return [_bar(record) for record in records.values()]


def number(value: float, unit: str = "") -> str:
    """A number as a person writes it, with three digits that count."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    space = "" if unit in ("x", "%", "") else " "
    return f"{text}{space}{unit}"


def _bar(record: Record) -> Bar:
    settings, value = record.settings, record.numbers.get("value")
    unit = settings["unit"]
    least, most = settings["at_least"], settings["at_most"]
    asked = "reported"
    if least is not None:
        asked = f"≥ {number(least, unit)}"
    if most is not None:
        asked = f"≤ {number(most, unit)}"
    passed = None
    if value is not None and (least is not None or most is not None):
        median = value["median"]
        passed = (least is None or median >= least) and (most is None or median <= most)
    found = told(value, unit) if value is not None else "see below"
    return Bar(record.name, settings["against"], asked, found, passed)


def told(value: dict[str, float], unit: str) -> str:
    """Median, quartiles and extremes in words."""
    parts = {name: number(value[name]) for name in ("q1", "q3", "min", "max")}
    return (
        f"**{number(value['median'], unit)}** "
        f"({parts['q1']} to {parts['q3']}; {parts['min']} to {parts['max']})"
    )
