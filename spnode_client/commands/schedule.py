"""Options that all commands have which queue jobs."""

from typing import Annotated, Any

import typer

from spnode_client.terminal import UsageError

Priority = Annotated[
    int | None,
    typer.Option(help="-10 to 10: higher ones begin first; above 0 needs admin."),
]
Deadline = Annotated[
    str | None,
    typer.Option(help="Time to its end, 90s, 30m, 12h or 2d; later it has failed."),
]
Gpu = Annotated[bool, typer.Option("--gpu", help="Only for a worker that has a GPU.")]
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def schedule_of(priority: int | None, deadline: str | None, gpu: bool) -> Any:
    """Return what a request says of its schedule; None where nothing was said."""
    given: dict[str, Any] = {}
    if priority is not None:
        given["priority"] = priority
    if deadline is not None:
        given["deadline_seconds"] = parse_duration(deadline, "--deadline")
    if gpu:
        given["device"] = "gpu"
    return given or None


def parse_duration(text: str, option: str) -> float:
    """Return seconds: ``"90"``, ``"90s"``, ``"1.5h"``.

    Raises:
        UsageError: It is no time above 0.
    """
    number, unit = (text[:-1], text[-1:]) if text[-1:] in _SECONDS else (text, "s")
    try:
        seconds = float(number) * _SECONDS[unit]
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"{option} {text!r}: expected a time, 90s, 30m, 12h or 2d")
    return seconds
