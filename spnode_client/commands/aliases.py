"""``models history`` and ``models unalias``: where an alias was, and its end."""

from typing import Annotated

import typer

from spnode_client.connection import connection
from spnode_client.moments import moment
from spnode_client.records import Record
from spnode_client.terminal import Json, emit, out, print_table

ModelName = Annotated[str, typer.Argument(help="Name of the model.")]
Alias = Annotated[str, typer.Argument(help="The alias, e.g. champion.")]


def history(name: ModelName, alias: Alias, as_json: Json = False) -> None:
    """List every move of an alias, newest first: from where, to where, by whom, why.

    Example: spnode models history robertson champion
    """
    found = connection.client().models.alias_history(name, alias)
    columns = ("moved", "from", "to", "by", "reason")
    emit(found, as_json, lambda: print_table(columns, [_row(move) for move in found]))


def unalias(name: ModelName, alias: Alias, as_json: Json = False) -> None:
    """Delete an alias; the version that it points at stays, and so does its history.

    Example: spnode models unalias robertson challenger
    """
    connection.client().models.delete_alias(name, alias)
    gone = f"{name}@{alias}"
    emit({"deleted": gone}, as_json, lambda: out.print(f"deleted {gone}", markup=False))


def _row(move: Record) -> tuple[object, ...]:
    return (
        moment(move.get("moved_at")),
        move.get("previous"),
        move.get("number"),
        move.get("moved_by"),
        move.get("reason"),
    )
