"""``models``: the registry from the shell."""

from pathlib import Path
from typing import Annotated, Any

import typer

from spnode_client.commands.compare import check_no_worse
from spnode_client.commands.version_report import print_version
from spnode_client.connection import connection
from spnode_client.records import claims, held_out
from spnode_client.terminal import (
    Json,
    UsageError,
    emit,
    out,
    print_json,
    print_table,
    short,
)

app = typer.Typer(
    no_args_is_help=True,
    help="Models: list, versions, show, card, plots, register, alias, delete.",
)
Reference = Annotated[str, typer.Argument(help="name, name@alias or name/3.")]


@app.command("list")
def list_models(
    limit: Annotated[int, typer.Option(help="How many at most.")] = 50,
    as_json: Json = False,
) -> None:
    """List the models.

    Example: spnode models list
    """
    found = connection.client().models.list(limit)
    emit(found, as_json, lambda: _table(found))


@app.command()
def versions(
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    limit: Annotated[int, typer.Option(help="How many at most.", max=100)] = 20,
    as_json: Json = False,
) -> None:
    """List a model's versions, newest first, with their errors on held-out data.

    Example: spnode models versions robertson
    """
    models = connection.client().models
    model = models.get(name)
    found = model["versions"][:limit]
    for each in found:
        errors = held_out(models.evaluation(f"{name}/{each['number']}"))
        each["normalised_rmse"] = errors.get("normalised_rmse")
        pairs = sorted(model["aliases"].items())
        each["aliases"] = [alias for alias, at in pairs if at == each["number"]]
    emit(found, as_json, lambda: _versions(found))


@app.command()
def register(
    file: Annotated[
        Path, typer.Argument(help="What spnode_core.save wrote.", exists=True)
    ],
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    as_json: Json = False,
) -> None:
    """Make a file the next version of a model; it is rolled out once before that.

    Example: spnode models register mine.spnode robertson
    """
    version = connection.client().models.register(file, name)
    emit(version, as_json, lambda: out.print(str(version)))


@app.command()
def show(reference: Reference, as_json: Json = False) -> None:
    """Show what a version takes, what it is, how wrong, and what is proved of it.

    Example: spnode models show robertson@champion
    """
    models = connection.client().models
    version = models.version(reference)

    def say() -> None:
        print_version(version.record, models.card(reference))

    emit(version, as_json, say)


@app.command()
def card(reference: Reference, as_json: Json = False) -> None:
    """Show a version's model card: data, choices, errors, lineage.

    Example: spnode models card robertson/1
    """
    del as_json  # the card is JSON in both cases
    print_json(connection.client().models.card(reference))


@app.command()
def plots(
    reference: Reference,
    output: Annotated[
        Path, typer.Option(help="The folder where they go; it is made.")
    ] = Path(),
    as_json: Json = False,
) -> None:
    """Write the pictures of a version's training: loss, errors, spectrum, trajectories.

    Example: spnode models plots robertson/1 --output pictures
    """
    found = connection.client().models.plots(reference)
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, png in found.items():
            (output / f"{name}.png").write_bytes(png)
    except OSError as error:
        raise UsageError(f"--output {output}: {error}") from error
    written = [str(output / f"{name}.png") for name in found]
    words = "\n".join(written) or f"{reference} has none: it was made elsewhere"
    emit({"plots": written}, as_json, lambda: out.print(words, markup=False))


@app.command()
def certificate(reference: Reference, as_json: Json = False) -> None:
    """Say what is proved of a version, then what is not, with numbers.

    Example: spnode models certificate robertson
    """
    found = connection.client().models.certificate(reference)
    emit(found, as_json, lambda: out.print(in_words(found), markup=False))


@app.command()
def alias(
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    alias: Annotated[str, typer.Argument(help="The alias, e.g. champion.")],
    number: Annotated[int, typer.Argument(help="Number of the version.")],
    compare: Annotated[
        str | None,
        typer.Option(
            help="A dataset (ds_…, or a file): move only where the version is no worse "
            "on it than the one that the alias points at."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Move it even where it is worse.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Point an alias at a version.

    Example: spnode models alias robertson champion 3 --compare held_out.npz
    """
    client = connection.client()
    if compare is not None and not force:
        check_no_worse(client, name, alias, number, compare)
    found = client.models.set_alias(name, alias, number)
    emit(found, as_json, lambda: out.print(f"{name}@{alias} is {name}/{number}"))


@app.command()
def delete(reference: Reference, as_json: Json = False) -> None:
    """Delete a version that no alias points at.

    Example: spnode models delete robertson/2
    """
    connection.client().models.delete_version(reference)
    emit({"deleted": reference}, as_json, lambda: out.print(f"deleted {reference}"))


def in_words(found: dict[str, Any]) -> str:
    """A certificate, what holds first, each with its numbers and assumptions."""
    lines = []
    for title, holds in (("PROVED", True), ("NOT PROVED", False)):
        chosen = claims(found, holds)
        if chosen:
            lines.append(title)
        for name, claim in chosen.items():
            lines.append(f"  {name}: {claim.get('statement', '')}")
            numbers = _numbers(claim)
            if numbers:
                lines.append(f"      {numbers}")
            if claim.get("assumptions"):
                lines.append(f"      assuming: {'; '.join(claim['assumptions'])}")
    return "\n".join(lines)


def _numbers(claim: dict[str, Any]) -> str:
    """The single numbers of a claim; lists and matrices are for ``--json``."""
    return ", ".join(
        f"{name} {value:.6g}"
        for name, value in claim.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    )


def _table(found: list[dict[str, Any]]) -> None:
    rows = []
    for model in found:
        pairs = sorted(model["aliases"].items())
        named = ", ".join(f"{alias} {number}" for alias, number in pairs)
        rows.append((model["name"], model["latest"], named, model["description"]))
    print_table(("model", "latest", "aliases", "description"), rows)


def _versions(found: list[dict[str, Any]]) -> None:
    columns = ("version", "aliases", "error / spread", "size", "created")
    rows = [
        (
            each["number"],
            ", ".join(each["aliases"]),
            short(each["normalised_rmse"]),
            f"{each['size_bytes'] / 2**20:.2f} MiB",
            each["created_at"],
        )
        for each in found
    ]
    print_table(columns, rows)
