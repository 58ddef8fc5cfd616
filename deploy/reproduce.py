"""``reproduce`` as a command: what was typed, as a request to ``benchmarks.paper``."""

import shlex
from pathlib import Path
from typing import Any

import typer

from deploy.folder import ROOT, find_folder
from spnode_client.terminal import UsageError, emit, out, print_table

ALL = "all"


def run_examples(
    example: str, seeds: str, out_folder: Path | None, *, as_json: bool, **choices: Any
) -> None:
    """Reproduce an example or all of them and say what was reached.

    Args:
        example: A name, or ``all``.
        seeds: Numbers with commas between.
        out_folder: Where results go; ``docs/results``, or for a quick run the data
            folder.
        as_json: Print the bars as JSON.
        **choices: The other fields of ``Request`` and ``Options``.

    Raises:
        UsageError: No such example, or seeds that are none.
    """
    # JAX loads here alone: the other commands do not wait for it.
    from benchmarks.paper.command import EXAMPLES, Options, Request, reproduce

    if example != ALL and example not in EXAMPLES:
        known = ", ".join((*EXAMPLES, ALL))
        raise UsageError(f"example {example!r} is unknown: expected one of {known}")
    data = find_folder().path
    quick = choices.pop("quick")
    default = data / "quick-results" if quick else ROOT / "docs" / "results"
    request = Request(
        examples=list(EXAMPLES) if example == ALL else [example],
        options=Options(_seeds(seeds), quick=quick, cache=data / "reproduce"),
        out=out_folder or default,
        command=_command(example, seeds, quick=quick, **choices),
        **choices,
    )
    bars = reproduce(request)
    emit(bars, as_json, lambda: _tell(bars, request.out))
    if any(bar["passed"] is False for bar in bars):
        raise typer.Exit(1)


def _seeds(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(int(part) for part in text.split(","))
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0:
        raise UsageError(f"--seeds {text!r}: expected numbers from 0, as in 0,1,2")
    return seeds


def _command(example: str, seeds: str, **choices: Any) -> str:
    """What leads to the same numbers: where they are written does not matter."""
    words = ["./spnode", "reproduce", example]
    for name, value in choices.items():
        if value is True:
            words.append(f"--{name}")
        elif value:
            words += [f"--{name}", shlex.quote(str(value))]
    return " ".join([*words, "--seeds", seeds])


def _tell(bars: list[dict[str, Any]], folder: Path) -> None:
    signs = {True: "reached", False: "NOT REACHED", None: "not run yet"}
    rows = [(b["what"], b["asked"], b["found"], signs[b["passed"]]) for b in bars]
    print_table(("what", "asked", "found", ""), rows)
    out.print(f"\nresults: {folder}", markup=False)
