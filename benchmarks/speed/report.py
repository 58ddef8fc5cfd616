"""A group's figures as JSON and Markdown, and the index of all groups."""

import functools
from collections.abc import Sequence
from pathlib import Path

from benchmarks.paper.meter import duration
from benchmarks.paper.rows import Record, Records, table
from benchmarks.paper.store import Store
from benchmarks.speed.figures import Bar, Group, bars
from spnode_core.atomic import replacing
from spnode_core.plots import png

_SIGNS = {True: "reached", False: "**not reached**", None: ""}
_HEAD = """# Speed

Every number here is made by `./spnode bench all --peers`, which writes this page too.
Each is a ratio or a difference between contestants that were measured in turns, in one
run; told are the median over the rounds and, in brackets, quartiles and extremes.
Absolute times belong to the machine and its load, which each group's page names.
"""


def write_report(group: Group, store: Store, out: Path) -> list[Bar]:
    """Write ``<group>.json``, ``<group>.md`` and its picture from the stored figures.

    Returns:
        The figures as judged now.
    """
    found = bars(store.records)
    if found:
        store.write(found)
        with replacing(out / f"{group.name}.md") as file:
            file.write(page(group, store.records, found).encode())
        if group.draw is not None:
            picture = png(functools.partial(group.draw, store.records))
            with replacing(out / f"{group.name}.png") as file:
                file.write(picture)
    return found


def page(group: Group, records: Records, found: Sequence[Bar]) -> str:
    """The Markdown page of a group."""
    parts = [f"# {group.title}", group.about.strip(), bar_table(found)]
    if group.draw is not None:
        parts.append(f"![{group.title}]({group.name}.png)")
    parts += ["## In detail", *map(_detail, records.values())]
    parts += ["## How these numbers were made", _provenance(list(records.values()))]
    return "\n\n".join(parts) + "\n"


def bar_table(found: Sequence[Bar]) -> str:
    """What was measured, against what, and what was found."""
    return table(
        ("what", "against", "asked", "found", ""),
        [(b.what, b.against, b.asked, b.found, _SIGNS[b.passed]) for b in found],
    )


def write_index(out: Path, groups: Sequence[Group]) -> None:
    """Write ``README.md`` from the JSON files that are there."""
    parts = [_HEAD]
    for group in groups:
        found = bars(Store(out / f"{group.name}.json", "", keep=True).records)
        page = f"[{group.title}]({group.name}.md)" if found else group.title
        parts.append(f"## {page}\n")
        parts.append(bar_table(found) if found else "Not run yet.")
        parts.append("")
    with replacing(out / "README.md") as file:
        file.write("\n".join(parts).encode())


def _detail(record: Record) -> str:
    numbers = record.numbers
    parts = [f"### {record.name}"]
    sides = [
        f"{side}: {numbers[key]}"
        for side, key in (("ours", "ours"), (record.settings["against"], "theirs"))
        if key in numbers
    ]
    if sides:
        parts.append("; ".join(sides) + ".")
    if "table" in numbers:
        parts.append(table(numbers["table"]["columns"], numbers["table"]["rows"]))
    parts += numbers.get("notes", [])
    return "\n\n".join(parts)


def _provenance(records: list[Record]) -> str:
    newest = records[-1]
    told = ", ".join(f"{name} {found}" for name, found in newest.versions.items())
    commands = list(dict.fromkeys(record.command for record in records))
    lines = [
        *(f"    {each}" for each in commands),
        "",
        f"{newest.machine['processor']}, {newest.machine['memory_gib']} GiB, "
        f"{newest.machine['machine']}; {told}. Load: the system's mean number of "
        "running threads over the minute before and after a figure. Commit `+`: with "
        "changes.",
        "",
        table(
            ("figure", "commit", "cores", "load", "took"),
            [
                (
                    record.name,
                    record.commit,
                    record.machine["cores"],
                    " to ".join(f"{each:.1f}" for each in record.machine["load"]),
                    duration(record.seconds),
                )
                for record in records
            ],
        ),
    ]
    return "\n".join(lines)
