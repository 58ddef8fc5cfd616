"""``models compare``, and moving an alias only where the comparison allows it."""

from typing import Annotated, Any

import typer

from spnode_client.commands.datasets import dataset_of
from spnode_client.commands.schedule import Deadline, Gpu, Priority, schedule_of
from spnode_client.comparisons import Comparison
from spnode_client.connection import connection
from spnode_client.errors import ClientError, NotFound
from spnode_client.records import Record
from spnode_client.terminal import Json, counted, emit, err, follow, out, print_table


def compare(
    models: Annotated[
        list[str],
        typer.Argument(help="Versions: name, name@alias or name/3; first the one now."),
    ],
    dataset: Annotated[str, typer.Option(help="Id of a dataset (ds_…), or a file.")],
    part: Annotated[
        str | None,
        typer.Option(
            help="all, or test: what the last version trained there held out."
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
    """Compare versions on the same held-out trajectories.

    Example: spnode models compare robertson/2 robertson/3 --dataset held_out.npz
    """
    client = connection.client()
    asked = dataset_of(client, dataset, as_json)
    schedule = schedule_of(priority, deadline, gpu)
    job = client.models.compare(*models, dataset=asked, part=part, schedule=schedule)
    if detach:
        emit(job, as_json, lambda: out.print(f"{job.id} {job.state}"))
        return
    found = follow(job, quiet=as_json)
    emit(found.record, as_json, lambda: describe(found))


def check_no_worse(
    client: Any, name: str, alias: str, number: int, dataset: str
) -> Comparison | None:
    """Refuse to move an alias to a version that is worse than the one it is at.

    Args:
        client: A client of the service.
        name: Of the model.
        alias: That is to move.
        number: Of the version that it is to move to.
        dataset: Id or file of the trajectories to compare both on.

    Returns:
        The comparison; None where the alias points nowhere, or there already.

    Raises:
        ClientError: The version is worse, and by how much.
    """
    try:
        now = client.models.version(f"{name}@{alias}")
    except NotFound:
        return None
    if now.number == number:
        return None
    wanted = f"{name}/{number}"
    asked = dataset_of(client, dataset)
    found = client.models.compare(now, wanted, dataset=asked).wait()
    for each in (*found.warnings, found.verdicts[wanted]):
        err.print(each, markup=False)
    if found.is_worse(wanted):
        raise ClientError(
            f"{name}@{alias} stays at {now}, since {wanted} is worse: its worst state "
            f"errs by {_short(found.errors[wanted])} of the spread, against "
            f"{_short(found.errors[str(now)])}; --force moves the alias all the same"
        )
    return found


def describe(found: Comparison) -> None:
    """A comparison as tables and sentences."""
    record = found.record
    where = f"the {record['part']} part" if record["part"] == "test" else "all"
    out.print(
        f"on {where} of {record['dataset']}: "
        f"{counted(record['trajectories'], 'trajectory', 'trajectories')}; "
        "errors over the standard deviation of each state",
        markup=False,
    )
    versions = record["surrogates"]
    columns = {**versions, **record["baselines"]}
    rows: list[tuple[str, ...]] = [
        ("worst state", *(_short(_worst(each)) for each in columns.values())),
        ("all states", *(_short(each["normalised_rmse"]) for each in columns.values())),
    ]
    for state in record["scalings"]:
        cells = (each["states"].get(state) for each in columns.values())
        rows.append((state, *(_short(each) for each in cells)))
    later = {name: each["mid_trajectory"] for name, each in versions.items()}
    if all(later.values()):
        cells = [_short(_worst(each)) for each in later.values()]
        blank = [""] * (len(columns) - len(cells))
        rows.append(("worst state, from later samples", *cells, *blank))
    print_table(("", *columns), rows)
    for sentence in found.verdicts.values():
        out.print(sentence, markup=False)
    for warning in found.warnings:
        out.print(f"WARNING: {warning}", markup=False)


def _worst(record: Record) -> float | None:
    return record["worst_state"]["normalised_rmse"]


def _short(number: float | None) -> str:
    """JSON has no infinity: an error that overflowed comes as null."""
    return "not finite" if number is None else f"{number:.2g}"
