"""``datasets``: trajectories in the service's store."""

from pathlib import Path
from typing import Annotated

import typer

from spnode_client.client import Client
from spnode_client.commands.dataset_report import print_brief, print_report
from spnode_client.commands.paging import After, Everything, Limit, listed
from spnode_client.connection import connection
from spnode_client.moments import moment
from spnode_client.operations import datasets
from spnode_client.records import Dataset
from spnode_client.terminal import (
    Json,
    UsageError,
    emit,
    err,
    follow,
    out,
    print_table,
)
from spnode_client.transfer import downloading, uploading

app = typer.Typer(
    no_args_is_help=True, help="Datasets: upload, make, list, show, download."
)
DatasetId = Annotated[str, typer.Argument(help="Id of the dataset, ds_….")]


@app.command()
def upload(
    file: Annotated[
        Path,
        typer.Argument(
            help="npz, HDF5, netCDF, Zarr (zip), MATLAB, Parquet or CSV.", exists=True
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="A name; the file's own by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Upload a file; it is checked on arrival and summarised.

    Example: spnode datasets upload trajectories.npz
    """
    _check_no_folder(str(file))
    client = connection.client()
    with uploading(client, file, as_json):
        dataset = client.datasets.upload(file, name)
    _say(dataset, as_json)
    if not as_json:
        print_brief(dataset)


@app.command()
def make(
    system: Annotated[str, typer.Argument(help="A built-in system, e.g. robertson.")],
    trajectories: Annotated[int, typer.Option(help="How many.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the initial conditions.")] = 0,
    as_json: Json = False,
) -> None:
    """Make a dataset from a built-in system, with a stiff solver.

    Example: spnode datasets make robertson --trajectories 1000
    """
    job = connection.client().datasets.generate(system, trajectories, seed)
    _say(follow(job, quiet=as_json), as_json)


@app.command("list")
def list_datasets(
    limit: Limit = 20,
    after: After = None,
    everything: Everything = False,
    as_json: Json = False,
) -> None:
    """List datasets, newest first.

    Example: spnode datasets list --all
    """
    found = listed(datasets.page, {}, limit=limit, after=after, everything=everything)
    columns = ("id", "name", "trajectories", "states", "created")
    rows = [_row(Dataset.of(record)) for record in found]
    emit(found, as_json, lambda: print_table(columns, rows))


@app.command()
def show(dataset_id: DatasetId, as_json: Json = False) -> None:
    """Show what is in a dataset: counts, times, ranges, and what is noteworthy.

    Example: spnode datasets show ds_01kc…
    """
    dataset = connection.client().datasets.get(dataset_id)
    emit(dataset, as_json, lambda: print_report(dataset))


@app.command()
def download(
    dataset_id: DatasetId,
    output: Annotated[
        Path | None,
        typer.Option("--output", "--out", "-o", help="The file; ID.npz by default."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a dataset to an .npz file.

    Example: spnode datasets download ds_01kc… --output trajectories.npz
    """
    path = output or Path(f"{dataset_id}.npz")
    client = connection.client()
    with downloading(client, dataset_id, as_json):
        written = str(client.datasets.download(dataset_id, path))
    emit({"file": written}, as_json, lambda: out.print(written, markup=False))


@app.command()
def delete(dataset_id: DatasetId, as_json: Json = False) -> None:
    """Delete a dataset.

    Example: spnode datasets delete ds_01kc…
    """
    connection.client().datasets.delete(dataset_id)
    said = f"deleted {dataset_id}"
    emit({"deleted": dataset_id}, as_json, lambda: out.print(said, markup=False))


def _say(dataset: Dataset, as_json: bool) -> None:
    emit(dataset, as_json, lambda: out.print(dataset.id))


def _row(dataset: Dataset) -> tuple[object, ...]:
    record, summary = dataset.record, dataset.summary
    names = summary.get("states") or summary.get("names") or ()
    return (
        dataset.id,
        record.get("name", ""),
        summary.get("trajectories", ""),
        ", ".join(names)[:40],
        moment(record.get("created_at")),
    )


def dataset_of(client: Client, data: str, quiet: bool = False) -> Dataset | str:
    """The id that is given, or the dataset of a file, uploaded first.

    Args:
        client: Sends it.
        data: A file or an id.
        quiet: Show no bar.

    Raises:
        UsageError: There is no such file, and it is no id.
    """
    if data.startswith("ds_") and not Path(data).exists():
        return data
    _check_no_folder(data)
    if not Path(data).is_file():
        raise UsageError(f"no file {data!r} and no dataset id (ds_…)")
    with uploading(client, data, quiet):
        dataset = client.datasets.upload(data)
    err.print(f"[dim]dataset {dataset.id}[/]")
    if not quiet:
        print_brief(dataset)
    return dataset


def _check_no_folder(data: str) -> None:
    if Path(data).is_dir():
        where = f"cd {data} && zip -qr0 ../{Path(data).resolve().stem}.zip ."
        raise UsageError(f"{data!r} is a folder; send it as a zip: {where}")
