"""The stored rows, and the page that is made of them."""

import json
from pathlib import Path
from typing import Any

from benchmarks.systems.base import System
from benchmarks.systems.registry import BARS
from spnode_core.atomic import replacing

_HEAD = """# Systems that no rule knows

Stiff systems as plain `.npz` files, {run} of {known} run so far, each trained by
`fit(dataset)` with nothing else said than a limit of time. Errors are those of the
worst state on 50 unseen trajectories, RMSE over the standard deviation of the state
there (of the logarithm where the kept surrogate learns the logarithm): from unseen
starts at the sampling times, at times halfway between them, and from a random sample
in the first three fifths of each trajectory (mid). The best of the trivial baselines
(constant, linear DMD, nearest trajectory) stands beside them.

*Timing* is the relative error of the times at which states pass the middle of their
range, from unseen starts, of the worst state, with the part of these events that
rollouts missed, where some were.

| system | bar | starts | off grid | mid | timing | best baseline | kept | s | commit |
|---|---|---|---|---|---|---|---|---|---|
"""


def store(folder: Path, name: str, row: dict[str, Any]) -> None:
    """Keep a row, in place of an earlier one of the same system."""
    rows = _read(folder)
    rows[name] = row
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "systems.json") as file:
        file.write((json.dumps(rows, indent=1) + "\n").encode())


def write_page(folder: Path, known: dict[str, System]) -> Path:
    """Write ``systems.md`` of all stored rows; it names the systems without one."""
    rows = _read(folder)
    measured = [name for name in known if name in rows]
    head = _HEAD.format(run=len(measured), known=len(known))
    lines = [
        _line(name, rows[name]) if name in rows else _missing(system)
        for name, system in known.items()
    ]
    about = "\n".join(
        f"* **{name}** ({system.kind}): {system.equations}."
        for name, system in known.items()
    )
    verdicts = "\n".join(_verdicts(name, rows[name]) for name in measured)
    path = folder / "systems.md"
    with replacing(path) as file:
        content = (
            f"{head}{''.join(lines)}\n{_where(rows)}\n\n## What was tried\n"
            f"{verdicts}\n\n## The systems\n{about}\n"
        )
        file.write(content.encode())
    return path


def _line(name: str, row: dict[str, Any]) -> str:
    errors = [row["errors"][kind]["error"] for kind in ("starts", "off_grid", "mid")]
    cells = [
        name,
        _percent(row["bar"]),
        *(f"**{_percent(e)}**" if e <= row["bar"] else _percent(e) for e in errors),
        _timing(row["errors"]["starts"].get("timing", {})),
        _percent(min(row["baselines"].values())),
        f"{row['method']}, latent {row['latent']}",
        f"{row['seconds']:.0f}",
        row["commit"],
    ]
    return "| " + " | ".join(cells) + " |\n"


def _missing(system: System) -> str:
    cells = [system.name, _percent(BARS[system.kind]), "not run yet", *[""] * 7]
    return "| " + " | ".join(cells) + " |\n"


def _timing(states: dict[str, Any]) -> str:
    errors = [each["error"] for each in states.values() if each["error"] is not None]
    missed = max((each["missed"] for each in states.values()), default=0.0)
    if not errors:
        return "-"
    return _percent(max(errors)) + (f" ({_percent(missed)} missed)" if missed else "")


def _percent(part: float) -> str:
    return f"{100 * part:.2g} %"


def _verdicts(name: str, row: dict[str, Any]) -> str:
    said = [f"{each['value']}: {each['why']}" for each in row["verdicts"]]
    return f"* **{name}**: " + "; ".join(said) + "."


def _where(rows: dict[str, Any]) -> str:
    kinds = {
        f"{row['machine']['cores']} cores, {row['machine']['machine']}"
        for row in rows.values()
    }
    seeds = sorted({row["seed"] for row in rows.values()})
    return (
        f"Made by `python -m benchmarks.systems`, seed {', '.join(map(str, seeds))}, "
        f"on {'; '.join(sorted(kinds))}; bold where the bar is reached."
    )


def _read(folder: Path) -> dict[str, Any]:
    path = folder / "systems.json"
    return json.loads(path.read_text()) if path.exists() else {}
