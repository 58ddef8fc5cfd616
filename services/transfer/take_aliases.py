"""The aliases of an archive: moved only where that was asked, with their history."""

from datetime import datetime

import sqlalchemy as sa

from services import gates
from services.database import tables
from services.database.engine import Database
from services.database.registry_rows import (
    alias_row,
    check_home,
    lock_model,
    note_move,
    point,
    version_of,
)
from services.database.tables import instant
from services.errors import Conflict, Invalid, NotFound
from services.transfer.manifest import AliasEntry, ModelEntry, MoveEntry
from services.transfer.outcome import Outcome, State
from services.versions import CHAMPION, check_alias

IMPORTER = "registry import"
"""Who moved an alias, in its history."""
_NO_REASON = ("", "published")


def take_aliases(
    database: Database, model: ModelEntry, *, is_asked: bool, now: float
) -> list[Outcome]:
    """Point the aliases of a model to where they point in an archive.

    Args:
        database: Where the rows are.
        model: As the archive has it.
        is_asked: False: say only which of them point elsewhere here.
        now: Seconds since 1970.
    """
    at = instant(now)
    return [_take(database, model, each, at, is_asked) for each in model.aliases]


def _take(
    database: Database, model: ModelEntry, entry: AliasEntry, now: datetime, asked: bool
) -> Outcome:
    name = f"{model.name}@{entry.alias}"
    digests = {each.number: each.digest for each in model.versions}
    wanted = f"{model.name}/{entry.number}"
    gone: State = "refused" if asked else "left"
    try:
        check_alias(entry.alias)
        with database.transaction() as connection:
            lock_model(connection, model.name)
            check_home(connection, model.name, model.project)
            number = _number(connection, model.name, entry, digests)
            row = alias_row(connection, model.name, entry.alias)
            if row is not None and row["number"] == number:
                return Outcome("alias", name, "there", f"{model.name}/{number}")
            if number is None:
                return Outcome("alias", name, gone, f"{wanted} is not here")
            if not asked:
                here = "nowhere" if row is None else f"to {model.name}/{row['number']}"
                detail = f"it points {here} here, to {wanted} in the archive"
                return Outcome("alias", name, "left", detail)
            moves = [each for each in model.moves if each.alias == entry.alias]
            failed = _gate(connection, model.name, entry.alias, number, moves)
            if failed:
                return Outcome("alias", name, "refused", failed)
            _move(connection, model.name, entry, number, moves, now)
    except NotFound:
        return Outcome("alias", name, gone, f"{wanted} is not here")
    except (Invalid, Conflict) as error:
        return Outcome("alias", name, "refused", error.message)
    return Outcome("alias", name, "moved", f"to {model.name}/{number}")


def _number(
    connection: sa.Connection, model: str, entry: AliasEntry, digests: dict[int, str]
) -> int | None:
    """The number here of the version that an alias means; its own where it may be."""
    table = tables.versions
    query = sa.select(table.c.number).where(
        table.c.model == model, table.c.digest == digests.get(entry.number, "")
    )
    found = sorted(connection.execute(query).scalars())
    return entry.number if entry.number in found else next(iter(found), None)


def _gate(
    connection: sa.Connection,
    model: str,
    alias: str,
    number: int,
    moves: list[MoveEntry],
) -> str:
    """Why a version may not be champion, unless somebody gave a reason over there."""
    if alias != CHAMPION or (moves and moves[-1].reason not in _NO_REASON):
        return ""
    version = version_of(connection, model, number)
    failed = gates.failures(version.evaluation, version.certificate)
    return f"{model}/{number} may not be champion: {'; '.join(failed)}" * bool(failed)


def _move(
    connection: sa.Connection,
    model: str,
    entry: AliasEntry,
    number: int,
    moves: list[MoveEntry],
    now: datetime,
) -> None:
    table = tables.alias_moves
    mine = sa.and_(table.c.model == model, table.c.alias == entry.alias)
    is_new = connection.execute(sa.select(table.c.id).where(mine)).first() is None
    if is_new and number == entry.number:
        for each in moves:
            said = (each.number, each.previous, each.moved_at)
            note_move(connection, model, entry.alias, *said, each.moved_by, each.reason)
    reason = moves[-1].reason if moves else ""
    kept = "imported" if reason in _NO_REASON else f"imported: {reason}"
    point(connection, model, entry.alias, number, now, IMPORTER, kept)
