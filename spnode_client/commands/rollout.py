"""``rollout``: trajectories of a model from the shell."""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer

from spnode_client.commands.rollout_file import (
    check_file,
    csv_text,
    draw_rollout,
    write_rollout,
)
from spnode_client.connection import connection
from spnode_client.terminal import Json, UsageError, emit, err, out


def rollout(
    model: Annotated[str, typer.Argument(help="name, name@alias or name/3.")],
    x0: Annotated[
        str,
        typer.Option(
            help='Initial condition "1,0,0"; several with ";"; or an .npy or .csv file.'
        ),
    ],
    times: Annotated[
        str, typer.Option(help='"1,10,100", "linear:0:10:101" or "log:1e-5:1e5:50".')
    ],
    parameters: Annotated[
        str | None, typer.Option(help="Parameters, in the form of --x0.")
    ] = None,
    controls: Annotated[
        str | None,
        typer.Option(
            help='Controls, a row an interval, "0;1;0.5"; or an .npy or .csv file.'
        ),
    ] = None,
    control_times: Annotated[
        str | None,
        typer.Option(
            help="Start of each interval, the first 0, in the form of --times."
        ),
    ] = None,
    mode: Annotated[
        Literal["reproducible", "throughput"],
        typer.Option(
            help="throughput: more rows a second, equal to reproducible up to rounding."
        ),
    ] = "reproducible",
    precision: Annotated[
        Literal["model", "float64"],
        typer.Option(help="float64: the model's networks in float64 too."),
    ] = "model",
    intervals: Annotated[
        float | None,
        typer.Option(help="Coverage of prediction intervals: 0.5, 0.8, 0.9, 0.95."),
    ] = None,
    spread: Annotated[
        bool, typer.Option("--spread", help="Of an ensemble: how its members differ.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "--out", "-o", help="A .csv, .npz or .nc file."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="A picture: a .png, .svg or .pdf file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Roll out a model from initial conditions; a table in CSV by default.

    Example: spnode rollout mine --x0 1,0,0 --times log:1e-5:1e5:50 --plot mine.png
    """
    check_file(output, "--output", (".csv", ".npz", ".nc"))
    check_file(plot, "--plot", (".png", ".svg", ".pdf"))
    client = connection.client()
    version = client.models.version(model)
    names = version.record["signature"]["states"]
    options: dict[str, Any] = {"mode": mode, "precision": precision}
    if intervals is not None:
        options["intervals"] = intervals
    if spread:
        options["spread"] = True
    if parameters is not None:
        options["parameters"] = parse_rows(parameters, "--parameters")
    if controls is not None:
        options["controls"] = np.atleast_2d(parse_rows(controls, "--controls"))
    if control_times is not None:
        options["control_times"] = parse_times(control_times, "--control-times")
    answer = client.rollout_record(
        model, parse_rows(x0, "--x0"), parse_times(times), **options
    )
    if output is not None:
        write_rollout(answer, version, output)
        err.print(f"wrote {output}", markup=False)
    if plot is not None:
        draw_rollout(answer, version, plot)
        err.print(f"drew {plot}")
    if as_json or (output is None and plot is None):
        emit(
            {**answer.__dict__, "states": names},
            as_json,
            lambda: out.print(csv_text(answer, names), end="", markup=False),
        )


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
