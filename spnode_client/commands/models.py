"""``models``: the registry from the shell."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from spnode_client.commands.aliases import Alias, ModelName
from spnode_client.commands.card_report import print_card
from spnode_client.commands.compare import check_no_worse
from spnode_client.commands.paging import (
    After,
    Everything,
    Limit,
    Watched,
    check_watched_alone,
    listed,
)
from spnode_client.commands.version_report import print_version
from spnode_client.connection import connection
from spnode_client.moments import moment
from spnode_client.operations import models
from spnode_client.records import Record, claims
from spnode_client.terminal import (
    Json,
    UsageError,
    as_printed,
    emit,
    out,
    print_facts,
    print_table,
    short,
    watch,
)
from spnode_client.transfer import uploading

app = typer.Typer(
    no_args_is_help=True,
    help="Models: list, describe, versions, show, register, alias, delete and more.",
)
Reference = Annotated[str, typer.Argument(help="name, name@alias or name/3.")]


@app.command("list")
def list_models(
    limit: Limit = 50,
    after: After = None,
    everything: Everything = False,
    as_json: Json = False,
) -> None:
    """List the models, newest first.

    Example: spnode models list --all
    """
    found = listed(models.page, {}, limit=limit, after=after, everything=everything)
    emit(found, as_json, lambda: _table(found))


@app.command()
def describe(
    name: ModelName,
    description: Annotated[
        str | None, typer.Option(help='A sentence about it; "" takes it away.')
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(help="key=value, beside the tags that it has; key= removes one."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a model's description, tags and aliases, or change the first two.

    Example: spnode models describe robertson --description "1e-5 to 1e5 s" --tag unit=s
    """
    client = connection.client()
    changed = dict(map(_tag, tag or ()))
    if changed:
        found = client.models.tag(name, changed, description)
    elif description is not None:
        found = client.models.describe(name, description)
    else:
        found = client.models.get(name)
    emit(found, as_json, lambda: print_facts(_facts(found)))


@app.command()
def versions(
    name: ModelName,
    limit: Limit = 20,
    after: After = None,
    everything: Everything = False,
    is_watched: Watched = False,
    as_json: Json = False,
) -> None:
    """List a model's versions, newest first, with their errors on held-out data.

    Example: spnode models versions robertson
    """
    page = functools.partial(models.versions, name)

    def read() -> list[Record]:
        model = connection.client().models.get(name)
        where = {"after": after, "everything": everything, "quiet": is_watched}
        found = listed(page, {}, limit=limit, **where)
        pairs = sorted(model["aliases"].items())
        for each in found:
            each["aliases"] = [alias for alias, at in pairs if at == each["number"]]
        return found

    if is_watched:
        check_watched_alone({"json": as_json, "after": after, "all": everything})
        watch(lambda: as_printed(lambda: _versions(read())))
        return
    found = read()
    emit(found, as_json, lambda: _versions(found))


@app.command()
def register(
    file: Annotated[
        Path,
        typer.Argument(
            help="What spnode_core.save wrote.", exists=True, dir_okay=False
        ),
    ],
    name: ModelName,
    as_json: Json = False,
) -> None:
    """Make a file the next version of a model; it is rolled out once before that.

    Example: spnode models register mine.spnode robertson
    """
    client = connection.client()
    with uploading(client, file, as_json):
        version = client.models.register(file, name)
    emit(version, as_json, lambda: out.print(str(version), markup=False))


@app.command()
def show(reference: Reference, as_json: Json = False) -> None:
    """Show what a version takes, what it is, how wrong, and what is proved of it.

    Example: spnode models show robertson@champion
    """
    client = connection.client()
    version = client.models.version(reference)

    def say() -> None:
        print_version(version.record, client.models.card(reference))

    emit(version, as_json, say)


@app.command()
def card(reference: Reference, as_json: Json = False) -> None:
    """Show a version's model card: data, choices, errors, lineage.

    Example: spnode models card robertson/1
    """
    client = connection.client()
    found = client.models.card(reference)

    def say() -> None:
        print_card(client.models.version(reference).record, found)

    emit(found, as_json, say)


@app.command()
def plots(
    reference: Reference,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "--out", "-o", help="The folder where they go; it is made."
        ),
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
    name: ModelName,
    alias: Alias,
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
    override: Annotated[
        str | None,
        typer.Option(help="Why champion may take a version that fails its gates."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Point an alias at a version.

    Example: spnode models alias robertson champion 3 --compare held_out.npz
    """
    client = connection.client()
    if compare is not None and not force:
        check_no_worse(client, name, alias, number, compare)
    found = client.models.set_alias(name, alias, number, override=override)
    said = f"{name}@{alias} is {name}/{number}"
    emit(found, as_json, lambda: out.print(said, markup=False))


@app.command()
def delete(reference: Reference, as_json: Json = False) -> None:
    """Delete a version that no alias points at.

    Example: spnode models delete robertson/2
    """
    connection.client().models.delete_version(reference)
    said = f"deleted {reference}"
    emit({"deleted": reference}, as_json, lambda: out.print(said, markup=False))


def _tag(text: str) -> tuple[str, str | None]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f"--tag {text!r}: expected key=value, or key= to remove it")
    return key, value or None


def _facts(model: Record) -> Iterator[tuple[str, str]]:
    yield "model", str(model["name"])
    yield "description", str(model.get("description") or "")
    tags = sorted((model.get("tags") or {}).items())
    yield "tags", ", ".join(f"{key}={value}" for key, value in tags)
    yield "aliases", _aliases(model)
    yield "latest", str(model.get("latest") or "")


def _aliases(model: Record) -> str:
    pairs = sorted((model.get("aliases") or {}).items())
    return ", ".join(f"{alias} {number}" for alias, number in pairs)


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
        named, description = _aliases(model), model["description"]
        rows.append((model["name"], model["latest"], named, description))
    print_table(("model", "latest", "aliases", "description"), rows)


def _versions(found: list[dict[str, Any]]) -> None:
    columns = ("version", "aliases", "error / spread", "size", "created")
    rows = [
        (
            each["number"],
            ", ".join(each["aliases"]),
            short(each.get("normalised_rmse")),
            f"{each['size_bytes'] / 2**20:.2f} MiB",
            moment(each["created_at"]),
        )
        for each in found
    ]
    print_table(columns, rows)
