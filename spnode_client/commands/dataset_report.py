"""A dataset's summary as a person reads it."""

from collections.abc import Iterator
from typing import Any

from spnode_client.records import Dataset
from spnode_client.terminal import counted, err, out, print_table, short

_SHOWN = 5


def print_report(dataset: Dataset) -> None:
    """Counts, times, states with their ranges, and what is noteworthy."""
    summary = dataset.summary
    name = dataset.record.get("name")
    for line in (f"{dataset.id}  {name or ''}".rstrip(), *_counts(summary)):
        out.print(line, markup=False)
    out.print()
    print_table(
        ("state", "unit", "from", "to", "decades", "time scale", "scaling", "missing"),
        [_state(*each) for each in summary.get("states", {}).items()],
    )
    ranges = [
        (name, kind, short(found["minimum"]), short(found["maximum"]))
        for kind in ("parameter", "control")
        for name, found in summary.get(f"{kind}s", {}).items()
    ]
    if ranges:
        out.print()
        print_table(("input", "kind", "from", "to"), ranges)
    for line in _notes(summary):
        out.print(line, markup=False)


def print_brief(dataset: Dataset) -> None:
    """Counts, times and what is noteworthy, on standard error."""
    for line in (*_counts(dataset.summary), *_notes(dataset.summary)):
        err.print(line, markup=False, style="dim")


def _counts(summary: dict[str, Any]) -> Iterator[str]:
    few, most = summary["samples_per_trajectory"]
    each = f"{few}" if few == most else f"{few} to {most}"
    grid = "on one time grid" if summary["same_times"] else "on grids of their own"
    trajectories = counted(summary["trajectories"], "trajectory", "trajectories")
    yield f"{trajectories} of {each} samples, {grid}"
    times, unit = summary["times"], summary["times"]["unit"]
    longest, shortest = (
        f"{short(times[key])} {unit}".rstrip() for key in ("longest", "shortest_step")
    )
    yield f"up to {longest}, shortest step {shortest}: {times['decades']:.1f} decades"
    if summary["stiffness"] is not None:
        yield f"longest time over shortest time scale: {short(summary['stiffness'])}"


def _state(name: str, found: dict[str, Any]) -> tuple[object, ...]:
    return (
        name,
        found["unit"],
        short(found["minimum"]),
        short(found["maximum"]),
        f"{found['decades']:.1f}",
        short(found["time_scale"]),
        found["normalisation"],
        found["missing"] or "",
    )


def _notes(summary: dict[str, Any]) -> Iterator[str]:
    for name, terms in summary.get("conserved", {}).items():
        yield f"conserved, as declared: {name} = {_sum(terms)}"
    for terms in summary.get("sums_found", []):
        yield f"constant along every trajectory: {_sum(terms)}"
    if summary.get("positive"):
        yield "states are declared positive"
    pairs = summary.get("duplicates", [])
    if pairs:
        shown = _some([f"{b} = {a}" for a, b in pairs])
        yield f"warning: trajectories that repeat others: {shown}"
    if names := summary.get("constant"):
        yield f"warning: the same in all samples: {_some(names)}"
    if names := summary.get("constant_along"):
        yield (
            f"warning: changes between trajectories only: {_some(names)}; parameters, "
            f"perhaps (parameter:{names[0]} in a table)"
        )
    for problem in summary.get("unit_problems", []):
        yield f"warning: {problem}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _sum(terms: dict[str, float]) -> str:
    parts = []
    for name, coefficient in terms.items():
        size = f"{abs(coefficient):.6g}"
        sign = "-" if coefficient < 0 else "+"
        parts.append(f"{sign} {name}" if size == "1" else f"{sign} {size}*{name}")
    return " ".join(parts).removeprefix("+ ")
