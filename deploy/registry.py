"""``registry``: all models with their versions as one archive, and back."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spnode_client.terminal import Json, emit, err, out

if TYPE_CHECKING:
    from services.transfer.manifest import Manifest
    from services.transfer.outcome import Imported

app = typer.Typer(no_args_is_help=True, help="The whole registry: export, import.")
Names = Annotated[
    list[str] | None, typer.Argument(metavar="[MODEL]...", help="All by default.")
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option("--database", help="Its URL, if not that of the data folder."),
]
StoreUrl = Annotated[
    str | None, typer.Option("--store", help="URL of its store; goes with --database.")
]
_WORDS = {
    "added": "added",
    "moved": "moved",
    "there": "here already",
    "left": "left as they are",
    "refused": "refused",
}


@app.command("export")
def export(
    target: Annotated[
        Path, typer.Argument(help="A file that ends in .zip, or a folder.")
    ],
    models: Names = None,
    datasets: Annotated[
        bool, typer.Option("--datasets", help="Datasets of these models too.")
    ] = False,
    database: DatabaseUrl = None,
    store: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Write models with their versions, aliases and history as one archive.

    Example: ./spnode registry export registry.zip
    """
    from deploy.opened import opened
    from services.transfer.export import export_registry

    with opened(database, store) as (rows, blobs):
        found = export_registry(
            rows, blobs, target, models=models or (), datasets=datasets
        )
    emit(_short(found, target), as_json, lambda: _tell_export(found, target))


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="What export wrote.")],
    models: Names = None,
    aliases: Annotated[
        bool, typer.Option("--aliases", help="Move aliases as they are over there.")
    ] = False,
    datasets: Annotated[
        bool, typer.Option("--datasets", help="Take its datasets too.")
    ] = False,
    database: DatabaseUrl = None,
    store: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Take the versions of an archive that are not here yet.

    What is here is never changed; aliases move with --aliases alone. Exit code 1: a
    version, an alias or a dataset was refused.

    Example: ./spnode registry import registry.zip --aliases
    """
    from deploy.opened import opened
    from services.transfer.take import import_registry

    with opened(database, store, make=True) as (rows, blobs):
        found = import_registry(
            rows,
            blobs,
            source,
            models=models or (),
            aliases=aliases,
            datasets=datasets,
        )
    emit(found.as_dict(), as_json, lambda: _tell_import(found))
    if not found.is_good:
        raise typer.Exit(1)


def _short(found: "Manifest", target: Path) -> dict[str, Any]:
    models = {
        model.name: {
            "versions": [each.number for each in model.versions],
            "aliases": {each.alias: each.number for each in model.aliases},
        }
        for model in found.models
    }
    datasets = [each.id for each in found.datasets]
    return {"path": str(target), "models": models, "datasets": datasets}


def _tell_export(found: "Manifest", target: Path) -> None:
    versions = sum(len(model.versions) for model in found.models)
    text = f"{versions} versions of {len(found.models)} models"
    if found.datasets:
        text += f", {len(found.datasets)} datasets"
    out.print(f"{target}: {text}", markup=False)


def _tell_import(found: "Imported") -> None:
    for each in found.outcomes:
        if each.state != "there":
            detail = f": {each.detail}" if each.detail else ""
            line = f"{each.state:<8} {each.what} {each.name}{detail}"
            out.print(line, markup=False)
    counts = Counter(each.state for each in found.outcomes)
    parts = [f"{counts[state]} {_WORDS[state]}" for state in _WORDS if counts[state]]
    out.print(", ".join(parts) or "the archive is empty")
    if found.of("left"):
        err.print("--aliases moves the aliases that were left")
