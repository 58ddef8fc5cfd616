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

    Of those that were deleted there the history comes, where there is none here.

    Args:
        database: Where the rows are.
        model: As the archive has it.
        is_asked: False: say only which of them point elsewhere here.
        now: Seconds since 1970.
    """
    at = instant(now)
    taken = [_take(database, model, each, at, is_asked) for each in model.aliases]
    gone = {each.alias for each in model.moves} - {each.alias for each in model.aliases}
    return taken + [
        _take_history(database, model, alias, is_asked) for alias in sorted(gone)
    ]


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


def _take_history(
    database: Database, model: ModelEntry, alias: str, asked: bool
) -> Outcome:
    """Take the moves of an alias that was deleted over there."""
    name = f"{model.name}@{alias}"
    moves = [each for each in model.moves if each.alias == alias]
    try:
        check_alias(alias)
        with database.transaction() as connection:
            lock_model(connection, model.name)
            check_home(connection, model.name, model.project)
            if _has_moved(connection, model.name, alias):
                return Outcome("alias", name, "there", "it was deleted in the archive")
            if not asked:
                detail = "it was deleted in the archive, and never was here"
                return Outcome("alias", name, "left", detail)
            if not _mean_the_same(connection, model, moves):
                detail = "its history has numbers that other versions have here"
                return Outcome("alias", name, "left", detail)
            _note_moves(connection, model.name, moves)
    except NotFound:
        return Outcome("alias", name, "left", f"model {model.name} is not here")
    except (Invalid, Conflict) as error:
        return Outcome("alias", name, "refused", error.message)
    return Outcome("alias", name, "added", "its history, to the end of it")


def _has_moved(connection: sa.Connection, model: str, alias: str) -> bool:
    table = tables.alias_moves
    mine = sa.and_(table.c.model == model, table.c.alias == alias)
    return connection.execute(sa.select(table.c.id).where(mine)).first() is not None


def _mean_the_same(
    connection: sa.Connection, model: ModelEntry, moves: list[MoveEntry]
) -> bool:
    """Whether the numbers of moves are of no other versions here."""
    table = tables.versions
    named = {number for each in moves for number in (each.number, each.previous)}
    query = sa.select(table.c.number, table.c.digest).where(
        table.c.model == model.name, table.c.number.in_(named - {None})
    )
    there = {each.number: each.digest for each in model.versions}
    found = connection.execute(query)
    return all(there.get(row.number) == row.digest for row in found)


def _note_moves(connection: sa.Connection, model: str, moves: list[MoveEntry]) -> None:
    for each in moves:
        said = (each.number, each.previous, each.moved_at)
        note_move(connection, model, each.alias, *said, each.moved_by, each.reason)


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
    if number == entry.number and not _has_moved(connection, model, entry.alias):
        _note_moves(connection, model, moves)
    reason = moves[-1].reason if moves else ""
    kept = "imported" if reason in _NO_REASON else f"imported: {reason}"
    point(connection, model, entry.alias, number, now, IMPORTER, kept)
