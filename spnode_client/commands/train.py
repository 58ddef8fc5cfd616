"""``train``: from a file of trajectories to a model version."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from spnode_client.client import Client
from spnode_client.commands.datasets import dataset_of
from spnode_client.commands.schedule import Deadline, Gpu, Priority, schedule_of
from spnode_client.connection import connection
from spnode_client.errors import ProblemError
from spnode_client.operations.jobs import training_request
from spnode_client.records import (
    Dataset,
    ModelVersion,
    cautions,
    errors_by_state,
    held_out,
    statements,
)
from spnode_client.terminal import (
    Json,
    UsageError,
    each_once,
    emit,
    err,
    follow,
    out,
    print_table,
)

_ERRORS = {
    "relative_l2": "relative error (L2)",
    "rmse": "rms error",
    "normalised_rmse": "rms error / spread",
}
_ELSEWHERE = {"dataset": "DATA", "model": "--model"}
# Of the form of an id, so that the rest of a request is looked at.
_NO_DATASET = f"ds_{'0' * 26}"
_TERM = re.compile(r"\s*([+-]?)\s*(?:([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*\*\s*)?([^+\-*]+)")


def train(
    data: Annotated[
        str,
        typer.Argument(
            help="Trajectories (npz, netCDF, CSV, …), or the id of a dataset (ds_…)."
        ),
    ],
    model: Annotated[
        str | None, typer.Option(help="Name of the model; the file's name by default.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="auto, smooth or paper; docs/auto.md.")
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option(help="Of the relaxation form, which is then the one tried."),
    ] = None,
    conserved: Annotated[
        list[str] | None,
        typer.Option(
            help='A sum that each trajectory keeps, "mass=y1+y2+2*y3"; of states with '
            """+, - or * in their names: --set 'surrogate.conserved.q={"H+": 1}'."""
        ),
    ] = None,
    positive: Annotated[
        bool | None, typer.Option(help="States are positive by construction.")
    ] = None,
    certified: Annotated[
        bool, typer.Option("--certified", help="All rollouts provably come together.")
    ] = False,
    warm_start: Annotated[
        str | None,
        typer.Option(help="A version to go on from: name, name@alias or name/3."),
    ] = None,
    members: Annotated[
        int | None, typer.Option(help="Train an ensemble of so many, 1 to 16.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the training.")] = None,
    alias: Annotated[
        str | None, typer.Option(help="Alias that the new version takes.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Any field of the request, training.learning_rate=0.005."
        ),
    ] = None,
    priority: Priority = None,
    deadline: Deadline = None,
    gpu: Gpu = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Queue the job and return.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a surrogate on a dataset and register it as a model version.

    Example: spnode train trajectories.npz --model mine --conserved "mass=y1+y2+y3"
    """
    options = _options(preset, seed, alias, iterations, conserved, positive)
    if certified:
        options["certified"] = True
    if warm_start is not None:
        options["warm_start"] = warm_start
    if members is not None:
        options["members"] = members
    if schedule := schedule_of(priority, deadline, gpu):
        options["schedule"] = schedule
    for assignment in settings or ():
        assign(options, assignment, _ELSEWHERE)
    client = connection.client()
    if Path(data).is_file():
        _check(client, model or "model", options)
    dataset = dataset_of(client, data, as_json)
    job = client.train(dataset, model or model_name(client, dataset, data), **options)
    if detach:
        emit(job, as_json, lambda: out.print(f"{job.id} {job.state}"))
        return
    err.print(f"[dim]job {job.id}[/]")
    version = follow(job, quiet=as_json)
    emit(version, as_json, lambda: _describe(version))
    if warm_start is not None:
        _against_parent(client.models.card(str(version)))
    if members is not None and members > 1:
        _against_members(client.models.card(str(version)).get("ensemble"))
    note = _other_champion(client.models.get(version.model), version)
    if note:
        err.print(note, markup=False)


def parse_conserved(text: str) -> tuple[str, dict[str, float]]:
    """``"mass=y1+2*y2"`` as a name and its coefficients.

    Raises:
        UsageError: The text is not of that form.
    """
    name, equals, expression = text.partition("=")
    terms: dict[str, float] = {}
    position = 0
    while equals and position < len(expression.rstrip()):
        match = _TERM.match(expression, position)
        if match is None or (position and not match[1]):
            break
        sign = -1.0 if match[1] == "-" else 1.0
        terms[match[3].strip()] = sign * float(match[2] or 1)
        position = match.end()
    if not name.strip() or not terms or position < len(expression.rstrip()):
        raise UsageError(f'--conserved {text!r}: expected "name=y1+2*y2-y3"')
    return name.strip(), terms


def assign(
    options: dict[str, Any], assignment: str, elsewhere: Mapping[str, str]
) -> None:
    """Put what ``--set`` says, ``"training.batch=8"``, into nested options.

    Args:
        options: Where to put it.
        assignment: What was said.
        elsewhere: Fields that arguments and options of their own give.

    Raises:
        UsageError: It is not of that form, or has its own option.
    """
    path, equals, text = assignment.partition("=")
    *parents, last = path.split(".")
    if not equals or not all([*parents, last]):
        raise UsageError(f"--set {assignment!r}: expected a field and its value, a.b=1")
    if path in elsewhere or path == "kind":
        instead = f"{elsewhere[path]} gives it" if path in elsewhere else "it is given"
        raise UsageError(f"--set {assignment!r}: expected another field; {instead}")
    for parent in parents:
        options = options.setdefault(parent, {})
        if not isinstance(options, dict):
            raise UsageError(f"--set {assignment!r}: {parent!r} has no fields")
    try:
        options[last] = json.loads(text)
    except ValueError:
        options[last] = text


def model_name(client: Client, dataset: Dataset | str, data: str) -> str:
    """The name of a model by that of its file, or of the dataset with that id."""
    if isinstance(dataset, str):
        name = str(client.datasets.get(dataset).record.get("name") or "")
    else:
        name = Path(data).stem
    return re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_")[:64] or "model"


def _check(client: Client, model: str, options: dict[str, Any]) -> None:
    """Have a request refused before its file is sent, for what needs no data.

    Raises:
        ProblemError: What the service says of it.
    """
    try:
        client.jobs.validate(training_request(_NO_DATASET, model, options))
    except ProblemError as error:
        if error.code != "dataset_not_found":
            raise


def _options(
    preset: str | None,
    seed: int | None,
    alias: str | None,
    iterations: int | None,
    conserved: list[str] | None,
    positive: bool | None,
) -> dict[str, Any]:
    given = {"preset": preset, "seed": seed, "alias": alias}
    options: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    surrogate: dict[str, Any] = {}
    if conserved:
        sums = each_once("--conserved", map(parse_conserved, conserved))
        surrogate["conserved"] = sums
    if positive is not None:
        surrogate["positive"] = positive
    if surrogate:
        options["surrogate"] = surrogate
    if iterations is not None:
        options["training"] = {"iterations": iterations}
    return options


def _describe(version: ModelVersion) -> None:
    out.print(f"[bold]{escape(str(version))}[/]  {version.digest[:12]}")
    evaluation = version.record.get("evaluation") or {}
    found = held_out(evaluation)
    states = errors_by_state(evaluation, version.record)
    if states:
        print_table(
            ("state", *_ERRORS.values()),
            [
                (name, *(_number(row[each]) if each in row else "" for each in _ERRORS))
                for name, row in states.items()
            ],
        )
    if isinstance(error := found.get("scaled_mse"), float):
        out.print(f"held-out scaled mean squared error {error:.2e}")
    for statement in statements(version.record.get("certificate") or {}):
        out.print(statement, markup=False)
    for caution in cautions(evaluation):
        out.print(caution, markup=False)


def _against_parent(card: Mapping[str, Any]) -> None:
    """How a version does beside the one that it went on from, a sentence on stderr."""
    parent, found = card["parent"], card["warm_start"]
    name = f"{parent['model']}/{parent['version']}"
    if found["comparison"] is None:
        said = f"it went on from {name}; nothing was held out to compare them on"
        err.print(said, markup=False)
        return
    paired = found["comparison"]["paired"]["fine_tuned"]
    said = paired["verdict"].replace("reference", name)
    err.print(f"on the {found['part']} trajectories, {said}", markup=False)


def _against_members(found: Mapping[str, Any] | None) -> None:
    """How the mean of an ensemble does beside its members, on stderr."""
    if found is None:
        err.print("there is one member only; the outcome in the card says why")
    elif found["part"] is not None:
        each = ", ".join(f"{error:.3g}" for error in found["members_normalised_rmse"])
        err.print(
            f"on the {found['part']} trajectories the mean errs by "
            f"{found['normalised_rmse']:.3g} of the spread of the data, its members by "
            f"{each}; {found['spread']['note']}",
            markup=False,
        )


def _other_champion(model: Mapping[str, Any], version: ModelVersion) -> str:
    """Says so where the bare name of the model stays another version."""
    champion = model["aliases"].get("champion")
    if champion in (None, version.number):
        return ""
    return (
        f"{version.model} by itself still means its champion, version {champion}; "
        f"{connection.program} models alias {version.model} champion {version.number} "
        "moves it"
    )


def _number(value: float | None) -> str:
    """JSON has no infinity: an error that overflowed comes as null."""
    return "not finite" if value is None else f"{value:.2e}"
