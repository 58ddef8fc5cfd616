"""``jobs rollout``: more rows than one answer holds, queued from the shell."""

from pathlib import Path
from typing import Annotated, Any

import typer

from spnode_client.client import Client
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
from spnode_client.commands.jobs import write_result
from spnode_client.commands.rollout_file import check_file
from spnode_client.commands.schedule import Deadline, Gpu, Priority, schedule_of
from spnode_client.connection import connection
from spnode_client.terminal import Json, UsageError, check_once, emit, err, follow, out

_WHERE = (
    "--x0 gives the rows, or --dataset, or --sweep; with --sweep --x0 is one state: "
    "what is not swept"
)


def queue_rollout(
    model: Annotated[str, typer.Argument(help="name, name@alias or name/3.")],
    times: Times,
    x0: Annotated[
        str | None, typer.Option(help="An .npy or .csv file of states, or 1,0,0;….")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="A dataset whose trajectories begin the rows.")
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            help='A parameter or initial state and its values, "k1=log:1e-2:1e2:20" or '
            '"y1=0,0.5,1"; given several times, every combination.'
        ),
    ] = None,
    parameters: Parameters = None,
    controls: Controls = None,
    control_times: ControlTimes = None,
    final: Annotated[bool, typer.Option(help="Only the last time.")] = False,
    on_error: OnError = "raise",
    mode: Mode = "reproducible",
    precision: Precision = "model",
    priority: Priority = None,
    deadline: Deadline = None,
    gpu: Gpu = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "--out", "-o", help="Wait, and write an .npz file."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Queue a rollout whose rows go to the store; `jobs result` fetches them.

    Example: spnode jobs rollout mine --x0 rows.npy --times log:1e-5:1e5:50
    """
    if (x0 is None) == (dataset is None) and sweep is None:
        raise UsageError(_WHERE)
    check_file(output, "--output", (".npz",))
    client = connection.client()
    options = inputs_of(parameters, controls, control_times)
    options |= {"on_error": on_error, "mode": mode, "precision": precision}
    options["dataset"] = dataset
    options["schedule"] = schedule_of(priority, deadline, gpu)
    if final:
        options["outputs"] = {"times": "final"}
    if sweep:
        options["sweep"] = read_sweep(client, model, sweep)
    states = None if x0 is None else parse_rows(x0, "--x0")
    job = client.jobs.rollout(model, states, parse_times(times), **options)
    if output is not None:
        # Whoever stops watching can fetch it later.
        err.print(f"[dim]job {job.id}[/]")
        write_result(client, follow(job, quiet=as_json), output, quiet=as_json)
    emit(job, as_json, lambda: out.print(f"{job.id} {job.state}"))


def read_sweep(client: Client, model: str, given: list[str]) -> dict[str, Any]:
    """Axes of a sweep, each under the field that has its name.

    Raises:
        UsageError: One is not of the form NAME=VALUES, or names nothing of the model.
    """
    signature = client.models.version(model).record["signature"]
    known = {"parameters": signature["parameters"], "x0": signature["states"]}
    sweep: dict[str, Any] = {}
    for each in given:
        name, equals, values = each.partition("=")
        field = next((f for f, names in known.items() if name in names), None)
        if not equals or field is None:
            names = ", ".join([*known["parameters"], *known["x0"]])
            raise UsageError(f"--sweep {each!r}: expected NAME=VALUES of {names}")
        check_once("--sweep", name, sweep.get(field, {}))
        sweep.setdefault(field, {})[name] = parse_times(values, "--sweep").tolist()
    return sweep
