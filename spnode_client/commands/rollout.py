"""``rollout``: trajectories of a model from the shell."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from spnode_client.commands.inputs import (
    Controls,
    ControlTimes,
    Mode,
    OnError,
    Parameters,
    Precision,
    Times,
    inputs_of,
    parse_rows,
    parse_times,
)
from spnode_client.commands.rollout_file import (
    check_file,
    csv_text,
    draw_rollout,
    write_rollout,
)
from spnode_client.connection import connection
from spnode_client.records import Rollout
from spnode_client.terminal import Json, emit, err, out


def rollout(
    model: Annotated[str, typer.Argument(help="name, name@alias or name/3.")],
    x0: Annotated[
        str,
        typer.Option(
            help='Initial condition "1,0,0"; several with ";"; or an .npy or .csv file.'
        ),
    ],
    times: Times,
    parameters: Parameters = None,
    controls: Controls = None,
    control_times: ControlTimes = None,
    on_error: OnError = "raise",
    mode: Mode = "reproducible",
    precision: Precision = "model",
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
    options = inputs_of(parameters, controls, control_times)
    options |= {"on_error": on_error, "mode": mode, "precision": precision}
    if intervals is not None:
        options["intervals"] = intervals
    if spread:
        options["spread"] = True
    answer = client.rollout_record(
        model, parse_rows(x0, "--x0"), parse_times(times), **options
    )
    _tell_lost(answer)
    if output is not None:
        write_rollout(answer, version, output)
        err.print(f"wrote {output}", markup=False)
    if plot is not None:
        left_out = draw_rollout(answer, version, plot)
        err.print(f"drew {plot}{': ' * bool(left_out)}{left_out}", markup=False)
    if as_json or (output is None and plot is None):
        emit(
            {**answer.__dict__, "states": names},
            as_json,
            lambda: out.print(csv_text(answer, names), end="", markup=False),
        )


def _tell_lost(answer: Rollout) -> None:
    """Say which rows are masked; the others are as they would be without them."""
    x = answer.x if answer.x.ndim == 3 else answer.x[None]
    lost = np.flatnonzero(~np.isfinite(x).all(axis=(1, 2)))
    if lost.size:
        err.print(f"left the finite range, by row: {', '.join(map(str, lost))}")
