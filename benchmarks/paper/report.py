"""The results of one example as Markdown and as a figure."""

import os
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from benchmarks.paper.meter import duration
from benchmarks.paper.rows import Bar, Example, Record, Records, Row, table
from benchmarks.paper.store import Store
from spnode_core import plots
from spnode_core.atomic import replacing

COLOURS = (*plots.COLOURS, "#000000")
MARKS = ("o", "s", "^", "D", "v", "P", "X")
_STYLE = plots.STYLE | {"legend.frameon": False}
_OLD = " (with other settings than today's)"
_SIGNS = {True: "reached", False: "**not reached**", None: "not run yet"}


def write_report(
    example: Example, store: Store, rows: Sequence[Row], out: Path
) -> list[Bar]:
    """Write ``<example>.json``, ``.md`` and ``.png`` from the stored rows.

    Args:
        example: What they belong to.
        store: The rows that are stored.
        rows: The rows of today; what was stored with other settings is marked.
        out: Folder.

    Returns:
        The bars as judged now.
    """
    records = store.records
    bars = example.bars(records) if records else []
    store.write(bars)
    if not records:
        return bars
    figure = out / f"{example.name}.png"
    draw(example, records, figure)
    with replacing(out / f"{example.name}.md") as file:
        file.write(page(example, records, bars, store.stale(rows)).encode())
    return bars


def page(
    example: Example, records: Records, bars: list[Bar], stale: Collection[str]
) -> str:
    """The Markdown page of an example."""
    parts = [
        f"# {example.title}",
        example.about.strip(),
        bar_table(bars),
        f"![{example.title}]({example.name}.png)",
        example.tables(records).strip(),
        "## How these numbers were made",
        _provenance(list(records.values()), stale),
    ]
    return "\n\n".join(parts) + "\n"


def bar_table(bars: list[Bar]) -> str:
    """What was asked for, what was found."""
    return table(
        ("what", "paper", "asked", "found", ""),
        [(b.what, b.paper, b.asked, b.found, _SIGNS[b.passed]) for b in bars],
    )


def draw(example: Example, records: Records, path: Path) -> None:
    """Draw the figure of an example into a file."""
    # Its cache of fonts belongs neither beside results nor into a home that may be
    # read-only.
    cache = Path(tempfile.gettempdir()) / f"spnode-matplotlib-{os.getuid()}"
    os.environ.setdefault("MPLCONFIGDIR", str(cache))
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    with matplotlib.rc_context(_STYLE):
        figure = pyplot.figure(figsize=(7.2, 4.2), dpi=130, layout="constrained")
        example.draw(records, figure)
        with replacing(path) as file:
            figure.savefig(file, format="png")
        pyplot.close(figure)


def _provenance(records: list[Record], stale: Collection[str]) -> str:
    seconds = sum(record.seconds for record in records)
    commits = list(dict.fromkeys(record.commit for record in records))
    commands = list(dict.fromkeys(record.command for record in records))
    machine, versions = records[-1].machine, records[-1].versions
    lines = [
        *(f"    {each}" for each in commands),
        "",
        f"Commit {', '.join(commits)} (`+`: with changes). {len(records)} rows, "
        f"{duration(seconds)} in all, on {machine['cores']} CPU core(s) "
        f"that other work shared, {machine['memory_gib']} GiB, {machine['machine']}; "
        + ", ".join(f"{name} {found}" for name, found in versions.items())
        + ".",
        "",
        table(
            ("row", "commit", "seconds"),
            [
                (r.name + _OLD * (r.name in stale), r.commit, f"{r.seconds:.0f}")
                for r in records
            ],
        ),
    ]
    return "\n".join(lines)
