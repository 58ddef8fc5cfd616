"""Rows of the registry: reading, locking and moving them within a transaction."""

from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from services import gates
from services.database import tables
from services.errors import (
    Conflict,
    NotFound,
    PreconditionFailed,
    PreconditionRequired,
)
from services.projects import EVERYTHING, Access
from services.versions import (
    CHAMPION,
    LATEST,
    AliasRecord,
    ModelRecord,
    Reference,
    VersionRecord,
)


def etag(revision: int) -> str:
    """Return a revision as an entity tag."""
    return f'"{revision}"'


def no_such_model(name: str) -> NotFound:
    """What is said where there is no model of a name."""
    return NotFound("model", name, hint="GET /v1/models lists them")


def model_row(
    connection: sa.Connection, name: str, access: Access = EVERYTHING
) -> sa.RowMapping:
    """Return a model's row.

    Raises:
        NotFound: There is none of that name, or it is another project's.
    """
    table = tables.models
    query = sa.select(table).where(table.c.name == name, access.of(table.c.project))
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise no_such_model(name)
    return row


def check_seen(connection: sa.Connection, name: str, access: Access) -> None:
    """Refuse a model that the caller does not see, as one that does not exist.

    Raises:
        NotFound: It is another project's.
    """
    if not access.sees_all:
        model_row(connection, name, access)


def check_home(connection: sa.Connection, name: str, project: str) -> None:
    """Refuse a model of another project, where there is one of that name.

    Raises:
        Conflict: It is one.
    """
    table = tables.models
    query = sa.select(table.c.project).where(table.c.name == name)
    if connection.execute(query).scalar_one_or_none() not in (None, project):
        raise name_taken(name)


def lock_model(
    connection: sa.Connection, name: str, access: Access = EVERYTHING
) -> None:
    """Lock a model's row for this transaction.

    Raises:
        NotFound: There is none of that name, or it is another project's.
    """
    table = tables.models
    mine = sa.and_(table.c.name == name, access.of(table.c.project))
    same = sa.update(table).where(mine).values(name=table.c.name)
    if connection.execute(same).rowcount == 0:
        raise no_such_model(name)


def next_number(
    connection: sa.Connection, name: str, owner: str, project: str, now: datetime
) -> int:
    """Take the next version number of a model, which is made where it is new.

    Raises:
        Conflict: The name is another project's.
    """
    table = tables.models
    count = sa.update(table).where(table.c.name == name, table.c.project == project)
    count = count.values(last_number=table.c.last_number + 1)
    counted = count.returning(table.c.last_number)
    number = connection.execute(counted).scalar_one_or_none()
    if number is not None:
        return number
    if make_model(connection, name, owner, project, created_at=now, last_number=1):
        return 1
    # Another transaction has made it since our update found nothing.
    number = connection.execute(counted).scalar_one_or_none()
    if number is None:
        raise name_taken(name)
    return number


def name_taken(name: str) -> Conflict:
    """What is said to who would publish under a name of another project."""
    return Conflict(
        f"the name {name!r} is taken by a model of another project; choose another",
        code="model_name_taken",
    )


def make_model(
    connection: sa.Connection,
    name: str,
    owner: str,
    project: str,
    *,
    created_at: datetime,
    last_number: int,
    description: str = "",
    tags: dict[str, str] | None = None,
    updated_at: datetime | None = None,
) -> bool:
    """Make a model; False where another transaction has made it meanwhile."""
    row = {
        "name": name,
        "owner": owner,
        "project": project,
        "description": description,
        "tags": tags or {},
        "last_number": last_number,
        "revision": 1,
        "created_at": created_at,
        "updated_at": updated_at or created_at,
    }
    try:
        with connection.begin_nested():
            connection.execute(sa.insert(tables.models).values(row))
    except IntegrityError:
        return False
    return True


def version_of(
    connection: sa.Connection, name: str, number: int, *, lock: bool = False
) -> VersionRecord:
    """Return a version, its row locked where that is asked for.

    Raises:
        NotFound: There is no such model, or no such version of it.
    """
    table = tables.versions
    mine = sa.and_(table.c.model == name, table.c.number == number)
    query = sa.select(table).where(mine)
    found = connection.execute(query.with_for_update() if lock else query)
    row = found.mappings().one_or_none()
    if row is None:
        model_row(connection, name)
        hint = f"GET /v1/models/{name}/versions lists them"
        raise NotFound("version", f"{name}/{number}", hint=hint)
    return VersionRecord(**row)


def number_of(connection: sa.Connection, reference: Reference) -> int:
    """Return the number that an alias, or ``latest``, means now.

    Raises:
        NotFound: There is no such model, no such alias, or no version yet.
    """
    name, alias = reference.model, reference.alias
    if alias == LATEST:
        number = latest(connection, name)
    else:
        number = aliases_of(connection, name, alias).get(alias or CHAMPION)
    if number is not None:
        return number
    model_row(connection, name)
    hint = f"GET /v1/models/{name} lists its aliases"
    if alias == CHAMPION:
        hint = f"no version has become champion; use {name}@latest or {name}/number"
    raise NotFound("alias", f"{name}@{alias}", hint=hint)


def latest(connection: sa.Connection, name: str) -> int | None:
    """Return the newest number of a model, if it has a version."""
    table = tables.versions
    query = sa.select(sa.func.max(table.c.number)).where(table.c.model == name)
    return connection.execute(query).scalar_one()


def aliases_of(
    connection: sa.Connection, name: str, alias: str | None = None
) -> dict[str, int]:
    """Return alias to number, of all aliases of a model or of one."""
    table = tables.aliases
    query = sa.select(table.c.alias, table.c.number).where(table.c.model == name)
    if alias is not None:
        query = query.where(table.c.alias == alias)
    rows = connection.execute(query.order_by(table.c.alias))
    return {row.alias: row.number for row in rows}


def alias_row(connection: sa.Connection, name: str, alias: str) -> sa.RowMapping | None:
    """Return an alias's row, if there is one."""
    table = tables.aliases
    mine = sa.and_(table.c.model == name, table.c.alias == alias)
    return connection.execute(sa.select(table).where(mine)).mappings().one_or_none()


def check_match(
    row: sa.RowMapping | None, if_match: str | None, name: str, alias: str
) -> None:
    """Check that the caller has seen the alias as it is.

    Raises:
        PreconditionRequired: It exists and the caller does not say what it saw.
        PreconditionFailed: It is not what the caller saw.
    """
    current = None if row is None else etag(row["revision"])
    if if_match is None and row is not None:
        raise PreconditionRequired(
            f"{name}@{alias} exists; send its ETag {current} as If-Match to move it"
        )
    is_same = if_match == current or (if_match == "*" and row is not None)
    if if_match is not None and not is_same:
        raise PreconditionFailed(
            f"{name}@{alias} is at {current or 'no version'}, not at {if_match}"
        )


def promote(
    connection: sa.Connection,
    name: str,
    number: int,
    alias: str | None,
    now: datetime,
    moved_by: str,
    reason: str,
) -> list[str]:
    """Point an alias at a version; ``champion``, under its gates, where it is free too.

    Returns:
        The aliases that moved.

    Raises:
        NotFound: There is no such version.
    """
    lock_model(connection, name)
    version = version_of(connection, name, number)
    passes = not gates.failures(version.evaluation, version.certificate)
    wanted = {alias} - {None, CHAMPION}
    if passes and (alias == CHAMPION or not aliases_of(connection, name, CHAMPION)):
        wanted.add(CHAMPION)
    moved = sorted(filter(None, wanted))
    for each in moved:
        point(connection, name, each, number, now, moved_by, reason)
    return moved


def point(
    connection: sa.Connection,
    name: str,
    alias: str,
    number: int,
    now: datetime,
    moved_by: str,
    reason: str,
) -> None:
    """Point an alias at a version and note it; the model's row is locked."""
    table = tables.aliases
    row = alias_row(connection, name, alias)
    previous = None if row is None else row["number"]
    revision = note_move(
        connection, name, alias, number, previous, now, moved_by, reason
    )
    values = {"number": number, "revision": revision, "updated_at": now}
    if row is None:
        made = {"model": name, "alias": alias, **values}
        connection.execute(sa.insert(table).values(made))
        return
    mine = sa.and_(table.c.model == name, table.c.alias == alias)
    connection.execute(sa.update(table).where(mine).values(values))


def note_move(
    connection: sa.Connection,
    name: str,
    alias: str,
    number: int | None,
    previous: int | None,
    now: datetime,
    moved_by: str,
    reason: str,
) -> int:
    """Append to an alias's history; return the id, which is the alias's revision."""
    row = {
        "model": name,
        "alias": alias,
        "number": number,
        "previous": previous,
        "moved_by": moved_by,
        "reason": reason,
        "moved_at": now,
    }
    table = tables.alias_moves
    insert = sa.insert(table).values(row).returning(table.c.id)
    return connection.execute(insert).scalar_one()


def as_model(connection: sa.Connection, row: sa.RowMapping) -> ModelRecord:
    """Return the record of a model's row."""
    return ModelRecord(
        name=row["name"],
        owner=row["owner"],
        project=row["project"],
        description=row["description"],
        tags=row["tags"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        etag=etag(row["revision"]),
        latest=latest(connection, row["name"]),
        aliases=aliases_of(connection, row["name"]),
    )


def as_alias(connection: sa.Connection, row: sa.RowMapping) -> AliasRecord:
    """Return the record of an alias's row, with what its gates notice."""
    version = version_of(connection, row["model"], row["number"])
    is_champion = row["alias"] == CHAMPION
    return AliasRecord(
        model=row["model"],
        alias=row["alias"],
        number=row["number"],
        etag=etag(row["revision"]),
        updated_at=row["updated_at"],
        warnings=tuple(gates.warnings(version.certificate)) if is_champion else (),
    )


def versions_with(
    connection: sa.Connection, digests: Iterable[str], access: Access
) -> list[tuple[str, int, str]]:
    """Return model, number and digest of the versions that have some artifacts."""
    table, models = tables.versions, tables.models
    query = sa.select(table.c.model, table.c.number, table.c.digest)
    query = query.join_from(table, models, models.c.name == table.c.model)
    seen = query.where(access.of(models.c.project))
    rows = connection.execute(seen.where(table.c.digest.in_(list(digests))))
    return [(row.model, row.number, row.digest) for row in rows]
