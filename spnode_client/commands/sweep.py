"""``sweep``: trainings that differ in some settings, and which of them is best."""

import json
from typing import Annotated, Any

import typer
from rich.markup import escape

from spnode_client.commands.datasets import dataset_of
from spnode_client.commands.schedule import Deadline, Gpu, Priority, schedule_of
from spnode_client.commands.train import assign, model_name
from spnode_client.connection import connection
from spnode_client.sweeps import Candidate, Ranking
from spnode_client.terminal import (
    Json,
    UsageError,
    each_once,
    emit,
    err,
    follow,
    out,
    print_table,
    short,
)

_ELSEWHERE = {
    "dataset": "DATA",
    "model": "--model",
    "alias": "--alias",
    "ensemble": "--ensemble",
    "grid": "--vary",
}
_OWN = ("split", "tags", "schedule")
"""Fields of a sweep itself; any other is one of its candidates."""


def sweep(
    data: Annotated[
        str,
        typer.Argument(
            help="Trajectories (npz, netCDF, CSV, …), or the id of a dataset (ds_…)."
        ),
    ],
    vary: Annotated[
        list[str],
        typer.Option(help="A field and its values, surrogate.latent=4,8."),
    ],
    model: Annotated[
        str | None, typer.Option(help="Name of the model; the file's name by default.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="auto, smooth or paper.")] = None,
    ensemble: Annotated[
        int | None,
        typer.Option(help="Join so many of the best into one ensemble, 2 to 16."),
    ] = None,
    alias: Annotated[
        str | None,
        typer.Option(help="Alias that the best version takes, or the ensemble."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="A field of all candidates, training.max_seconds=60."
        ),
    ] = None,
    priority: Priority = None,
    deadline: Deadline = None,
    gpu: Gpu = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Queue the jobs and return.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train one version for each combination of settings, and rank them.

    Example: spnode sweep trajectories.npz --model mine --vary seed=0,1,2
    """
    options: dict[str, Any] = {} if preset is None else {"preset": preset}
    for assignment in settings or ():
        assign(options, assignment, _ELSEWHERE)
    grid = each_once("--vary", map(parse_values, vary))
    client = connection.client()
    dataset = dataset_of(client, data, as_json)
    own = {name: options.pop(name) for name in _OWN if name in options}
    schedule = schedule_of(priority, deadline, gpu)
    if schedule and isinstance(own.get("schedule", {}), dict):
        own["schedule"] = own.get("schedule", {}) | schedule
    name = model or model_name(client, dataset, data)
    own |= {"ensemble": ensemble, "alias": alias}
    job = client.sweep(dataset, name, grid=grid, **own, **options)
    if detach:
        emit(job, as_json, lambda: out.print(f"{job.id} {job.state}"))
        return
    err.print(f"[dim]job {job.id}[/]")
    found = follow(job, quiet=as_json)
    emit(found, as_json, lambda: describe(found))


def parse_values(text: str) -> tuple[str, list[Any]]:
    """``"seed=0,1,2"`` as a field and its values, each as JSON where it is some.

    Raises:
        UsageError: The text is not of that form.
    """
    name, equals, listed = text.partition("=")
    if not equals or not name.strip() or not listed.strip():
        raise UsageError(f"--vary {text!r}: expected a field and its values, seed=0,1")
    try:
        # Values with commas of their own: objects, lists.
        return name.strip(), json.loads(f"[{listed}]")
    except ValueError:
        return name.strip(), [_value(each.strip()) for each in listed.split(",")]


def describe(found: Ranking) -> None:
    """A ranking as a table, the best first."""
    fields = list(dict.fromkeys(f for each in found.candidates for f in each.settings))
    columns = ("version", *fields, "validation", "test", "seconds")
    print_table(columns, [_row(found.model, each, fields) for each in found.candidates])
    for each in found.candidates:
        if each.failure:
            out.print(f"{each.job}: {each.failure}", markup=False)
    held = found.record["trajectories"]
    counts = " and ".join(f"{count} {part}" for part, count in held.items())
    out.print(
        f"errors of the worst state over its spread, on {counts} trajectories; the "
        "validation part chose, so its best error is a little too good",
        markup=False,
    )
    for warning in found.warnings:
        out.print(f"[yellow]{escape(warning)}[/]")
    if found.ensemble:
        _describe_ensemble(found)
    aliases = ", ".join(f"{found.model}@{each}" for each in found.aliases)
    role = "is the ensemble" if found.ensemble else "is best"
    named = f"; it is {aliases}" if aliases else ""
    out.print(f"[bold]{escape(str(found))}[/] {role}{escape(named)}")


def _describe_ensemble(found: Ranking) -> None:
    joined = found.ensemble
    assert joined is not None
    members = ", ".join(f"{found.model}/{each}" for each in joined.members)
    errors = " and ".join(
        f"{short(error)} {part}"
        for part, error in (("validation", joined.validation), ("test", joined.test))
        if error is not None
    )
    out.print(f"{members} joined: {errors or 'not finite'}", markup=False)


def _row(model: str, each: Candidate, fields: list[str]) -> tuple[str, ...]:
    has_version = each.version is not None
    missing = "not finite" if has_version else ""
    return (
        f"{model}/{each.version}" if has_version else "none",
        *(_text(each.settings.get(field)) for field in fields),
        missing if each.validation is None else short(each.validation),
        short(each.test),
        "" if each.seconds is None else f"{each.seconds:.0f}",
    )


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else f"{value}"
