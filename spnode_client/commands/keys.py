"""``keys``: API keys, for whoever has an admin's."""

from typing import Annotated

import typer

from spnode_client.connection import connection
from spnode_client.terminal import Json, emit, err, out, print_table

app = typer.Typer(no_args_is_help=True, help="API keys: create, list, revoke.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it may do; read and rollout by default."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key; its secret is shown this once.

    Example: spnode keys create notebook --scope read --scope rollout
    """
    made = connection.client().keys.create(name, scope or ["read", "rollout"])

    def tell() -> None:
        err.print(f"[dim]key {made['id']}; the secret is not shown again:[/]")
        out.print(made["secret"])

    emit(made, as_json, tell)


@app.command("list")
def list_keys(as_json: Json = False) -> None:
    """List the keys, without their secrets.

    Example: spnode keys list
    """
    found = connection.client().keys.list()
    columns = ("id", "name", "scopes", "created")
    rows = [
        (key["id"], key.get("name"), " ".join(key["scopes"]), key.get("created_at"))
        for key in found
    ]
    emit(found, as_json, lambda: print_table(columns, rows))


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="Id of the key.")],
    as_json: Json = False,
) -> None:
    """Make a key useless.

    Example: spnode keys revoke key_01kc…
    """
    connection.client().keys.revoke(key_id)
    emit({"revoked": key_id}, as_json, lambda: out.print(f"revoked {key_id}"))
