"""``bench`` as a command: what was typed, as a request to ``benchmarks.speed``."""

import shlex
from pathlib import Path
from typing import Any

import typer

from deploy.folder import ROOT, find_folder
from spnode_client.terminal import UsageError, emit, out, print_table

ALL = "all"


def run_groups(
    group: str, out_folder: Path | None, *, only: str, as_json: bool, **choices: bool
) -> None:
    """Measure a group of figures or all of them and say what was found.

    Args:
        group: A name, or ``all``.
        out_folder: Where results go; ``docs/results/speed``, or for a quick run the
            data folder.
        only: Measure only figures whose name contains this.
        as_json: Print what was found as JSON.
        **choices: ``peers`` and ``quick``.

    Raises:
        UsageError: No such group.
    """
    # JAX loads here alone: the other commands do not wait for it.
    from benchmarks.speed.command import GROUPS, Options, Request, bench

    if group != ALL and group not in GROUPS:
        known = ", ".join((*GROUPS, ALL))
        raise UsageError(f"group {group!r} is unknown: expected one of {known}")
    data = find_folder().path
    default = ROOT / "docs" / "results" / "speed"
    request = Request(
        groups=list(GROUPS) if group == ALL else [group],
        options=Options(**choices, folder=data / "bench"),
        out=out_folder or (data / "quick-speed" if choices["quick"] else default),
        command=_command(group, only, choices),
        only=only,
    )
    found = bench(request)
    emit(found, as_json, lambda: _tell(found, request.out))
    if any(each["passed"] is False for each in found):
        raise typer.Exit(1)


def _command(group: str, only: str, choices: dict[str, bool]) -> str:
    words = ["./spnode", "bench", group]
    words += [f"--{name}" for name, value in choices.items() if value]
    return " ".join(words + (["--only", shlex.quote(only)] if only else []))


def _tell(found: list[dict[str, Any]], folder: Path) -> None:
    signs = {True: "reached", False: "NOT REACHED", None: ""}
    rows = [
        (
            each["what"],
            each["against"],
            each["asked"],
            each["found"].replace("**", ""),
            signs[each["passed"]],
        )
        for each in found
    ]
    print_table(("what", "against", "asked", "found", ""), rows)
    out.print(f"\nresults: {folder}", markup=False)
