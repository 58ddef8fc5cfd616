"""The index of the results: every bar, with the paper's figure and ours."""

from pathlib import Path

from benchmarks.paper.report import bar_table
from benchmarks.paper.rows import Example
from benchmarks.paper.store import stored_bars
from spnode_core.atomic import replacing

_HEAD = """# Results

Every number here is made by `./spnode reproduce all`, which writes this page too. Each
example has a page with settings, tables and a figure, and a JSON file with every
number, the commit, the command, the seeds, the time and the kind of machine.
The service's demo has a page of its own: [demo.md](demo.md). How fast it is:
[speed](speed/README.md), by `./spnode bench`. How honest the intervals of calibrations
are: [calibration](calibration.md), by `python -m benchmarks.calibration`. What `auto`
makes of other systems: [systems](systems.md), by `python -m benchmarks.systems`.
An hour of load, and whether anything grows: [soak](soak.md), by `./spnode soak`.
What is left of jobs and data amid faults: [one machine](chaos-local.md) and
[a network](chaos-network.md), by `./spnode chaos`.
What parsers and the API make of whatever is sent: [fuzzing](fuzz.md).
"""


def write_index(out: Path, examples: list[Example]) -> None:
    """Write ``README.md`` from the JSON files that are there."""
    parts = [_HEAD]
    for example in examples:
        bars = stored_bars(out / f"{example.name}.json")
        page = f"[{example.title}]({example.name}.md)" if bars else example.title
        parts.append(f"## {page}\n")
        parts.append(bar_table(bars) if bars else "Not run yet.")
        parts.append("")
    with replacing(out / "README.md") as file:
        file.write("\n".join(parts).encode())
