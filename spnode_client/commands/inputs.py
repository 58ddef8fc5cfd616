"""Options that all commands have which roll out a model, and what they are read as."""

from typing import Annotated, Any, Literal

import numpy as np
import typer

from spnode_client.terminal import UsageError

Times = Annotated[
    str, typer.Option(help='"1,10,100", "linear:0:10:101" or "log:1e-5:1e5:50".')
]
Parameters = Annotated[
    str | None, typer.Option(help="Parameters, in the form of --x0.")
]
Controls = Annotated[
    str | None,
    typer.Option(
        help='Controls, a row an interval, "0;1;0.5"; or an .npy or .csv file.'
    ),
]
ControlTimes = Annotated[
    str | None,
    typer.Option(help="Start of each interval, the first 0, in the form of --times."),
]
OnError = Annotated[
    Literal["raise", "mask"],
    typer.Option(
        help="mask: rows that leave the finite range fail alone, and are nan."
    ),
]
Mode = Annotated[
    Literal["reproducible", "throughput"],
    typer.Option(
        help="throughput: more rows a second, equal to reproducible up to rounding."
    ),
]
Precision = Annotated[
    Literal["model", "float64"],
    typer.Option(help="float64: the model's networks in float64 too."),
]


def inputs_of(
    parameters: str | None, controls: str | None, control_times: str | None
) -> dict[str, Any]:
    """Return what a request says of its inputs beside ``x0``; unsaid, it is left out.

    Raises:
        UsageError: One is not of the form of its option.
    """
    given: dict[str, Any] = {}
    if parameters is not None:
        given["parameters"] = parse_rows(parameters, "--parameters")
    if controls is not None:
        given["controls"] = np.atleast_2d(parse_rows(controls, "--controls"))
    if control_times is not None:
        given["control_times"] = parse_times(control_times, "--control-times")
    return given


def parse_times(text: str, option: str = "--times") -> np.ndarray:
    """Times written as a list or as ``spacing:start:stop:count``.

    Raises:
        UsageError: The text is neither.
    """
    spacing, *rest = text.split(":")
    expected = (
        f"{option} {text!r}: expected 1,10,100 or linear:START:STOP:COUNT or "
        "log:START:STOP:COUNT (log: START and STOP above 0)"
    )
    try:
        if not rest:
            return np.array([float(part) for part in text.split(",")])
        start, stop, count = float(rest[0]), float(rest[1]), int(rest[2])
        if spacing == "log" and not (start > 0 and stop > 0):
            raise ValueError("a logarithm of what is not positive")
        make = {"linear": np.linspace, "log": np.geomspace}[spacing]
        return make(start, stop, count)
    except (ValueError, KeyError, IndexError) as error:
        raise UsageError(expected) from error


def parse_rows(text: str, option: str) -> np.ndarray:
    """Rows written out, or read from an ``.npy`` or ``.csv`` file.

    Raises:
        UsageError: The text is neither numbers nor such a file.
    """
    try:
        if text.endswith(".npy"):
            return np.load(text, allow_pickle=False)
        if text.endswith(".csv"):
            return np.loadtxt(text, delimiter=",", ndmin=2)
        rows = [[float(part) for part in row.split(",")] for row in text.split(";")]
        if len({len(row) for row in rows}) > 1:
            raise ValueError(
                f"rows of {', '.join(str(len(row)) for row in rows)} numbers"
            )
        array = np.array(rows)
    except (OSError, ValueError) as error:
        raise UsageError(f"{option} {text!r}: {error}") from error
    return array[0] if len(rows) == 1 else array
