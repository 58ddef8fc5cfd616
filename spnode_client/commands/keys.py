"""``keys``: API keys, for whoever has an admin's."""

from typing import Annotated

import typer

from spnode_client.commands.paging import After, Everything, Limit, listed
from spnode_client.commands.schedule import parse_duration
from spnode_client.connection import connection
from spnode_client.moments import moment
from spnode_client.operations import keys
from spnode_client.records import Record
from spnode_client.terminal import Json, emit, err, out, print_table

app = typer.Typer(
    no_args_is_help=True,
    help="API keys: create, list, rotate, revoke, and what was done.",
)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it may do; read and rollout by default."),
    ] = None,
    project: Annotated[
        str, typer.Option(help="Whose datasets, jobs and models it sees.")
    ] = "default",
    expires_in: Annotated[
        str | None,
        typer.Option(help="How long it is valid, 12h or 90d; for good by default."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key; its secret is shown this once.

    Example: spnode keys create notebook --scope read --scope rollout --expires-in 90d
    """
    seconds = None if expires_in is None else parse_duration(expires_in, "--expires-in")
    made = connection.client().keys.create(
        name,
        scope or ["read", "rollout"],
        project=project,
        expires_in_seconds=seconds,
    )
    _show_once(made, as_json)


@app.command("list")
def list_keys(as_json: Json = False) -> None:
    """List the keys, without their secrets.

    Example: spnode keys list
    """
    found = connection.client().keys.list()
    columns = ("id", "name", "scopes", "project")
    columns += ("created", "expires", "revoked", "last used")
    times = ("created_at", "expires_at", "revoked_at", "last_used_at")
    rows = [
        (
            *(key["id"], key["name"], " ".join(key["scopes"]), key["project"]),
            *(moment(key.get(each)) for each in times),
        )
        for key in found
    ]
    emit(found, as_json, lambda: print_table(columns, rows))


@app.command()
def rotate(
    key_id: Annotated[str, typer.Argument(help="Id of the key.")],
    keep: Annotated[
        str, typer.Option(help="How long the old one stays valid, 90s, 30m or 12h.")
    ] = "1h",
    as_json: Json = False,
) -> None:
    """Make a key in the place of another, with its name, scopes and lifetime.

    Example: spnode keys rotate 01kc… --keep 12h
    """
    seconds = parse_duration(keep, "--keep")
    made = connection.client().keys.rotate(key_id, keep_seconds=seconds)
    _show_once(made, as_json)


@app.command()
def audit(
    key_id: Annotated[
        str | None, typer.Argument(help="Id of a key; of all by default.")
    ] = None,
    limit: Limit = 20,
    after: After = None,
    everything: Everything = False,
    as_json: Json = False,
) -> None:
    """Show what was done with the keys, newest first.

    Example: spnode keys audit --limit 50
    """
    query = {} if key_id is None else {"caller": f"key:{key_id}"}
    found = listed(keys.acts, query, limit=limit, after=after, everything=everything)
    columns = ("created", "caller", "method", "path", "status", "made", "request_id")
    rows = [
        (moment(act.get("created_at")), *map(act.get, columns[1:])) for act in found
    ]
    emit(found, as_json, lambda: print_table(columns, rows))


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="Id of the key.")],
    as_json: Json = False,
) -> None:
    """Make a key useless.

    Example: spnode keys revoke 01kc…
    """
    connection.client().keys.revoke(key_id)
    said = f"revoked {key_id}"
    emit({"revoked": key_id}, as_json, lambda: out.print(said, markup=False))


def _show_once(made: Record, as_json: bool) -> None:
    def tell() -> None:
        err.print(f"[dim]key {made['id']}; the secret is not shown again:[/]")
        out.print(made["secret"], markup=False)

    emit(made, as_json, tell)
