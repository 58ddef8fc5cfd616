"""Aliases: names of versions that move, each in one step with its history."""

import sqlalchemy as sa

from services import gates
from services.database import tables
from services.database.clock import Clock
from services.database.engine import Database
from services.database.registry_rows import (
    alias_row,
    as_alias,
    check_match,
    check_seen,
    lock_model,
    note_move,
    point,
    version_of,
)
from services.database.tables import instant
from services.errors import Conflict, NotFound
from services.projects import EVERYTHING, Access
from services.versions import CHAMPION, AliasMove, AliasRecord, check_alias


class Aliases:
    """The aliases of models.

    Args:
        database: Where the rows are.
        access: Which models the caller sees.
        clock: Seconds since 1970; the database's by default.
    """

    def __init__(
        self,
        database: Database,
        *,
        access: Access = EVERYTHING,
        clock: Clock | None = None,
    ) -> None:
        self.database = database
        self.access = access
        self.clock = clock or database.clock

    def get(self, name: str, alias: str) -> AliasRecord:
        """Return where an alias points.

        Raises:
            NotFound: There is no such alias.
        """
        with self.database.reading() as connection:
            check_seen(connection, name, self.access)
            row = alias_row(connection, name, alias)
            if row is None:
                raise NotFound("alias", f"{name}@{alias}")
            return as_alias(connection, row)

    def set(
        self,
        name: str,
        alias: str,
        number: int,
        *,
        moved_by: str,
        if_match: str | None = None,
        override: str | None = None,
    ) -> AliasRecord:
        """Point an alias at a version, in one step with its history.

        Args:
            name: Of the model.
            alias: Not ``latest``, nothing like a number.
            number: Of the version.
            moved_by: Who asks.
            if_match: Etag of the alias as the caller saw it, or ``*``; needed where
                the alias exists.
            override: Why ``champion`` may take a version that fails its gates.

        Raises:
            NotFound: No such model or version.
            PreconditionRequired: The alias exists and ``if_match`` is not given.
            PreconditionFailed: The alias has moved since.
            Conflict: The version fails the gates of ``champion``.
        """
        check_alias(alias)
        now = instant(self.clock())
        with self.database.transaction() as connection:
            lock_model(connection, name, self.access)
            check_match(alias_row(connection, name, alias), if_match, name, alias)
            version = version_of(connection, name, number)
            failed = gates.failures(version.evaluation, version.certificate)
            if alias == CHAMPION and failed and not override:
                raise Conflict(
                    f"{name}/{number} may not be champion: {'; '.join(failed)}; to "
                    "insist, give the reason in `override`",
                    code="gate_failed",
                )
            reason = override or ""
            point(connection, name, alias, number, now, moved_by, reason)
            row = alias_row(connection, name, alias)
            assert row is not None
            return as_alias(connection, row)

    def delete(
        self, name: str, alias: str, *, moved_by: str, if_match: str | None = None
    ) -> None:
        """Delete an alias; its history stays.

        Raises:
            NotFound: There is no such alias.
            PreconditionRequired: ``if_match`` is not given.
            PreconditionFailed: The alias has moved since.
        """
        table, now = tables.aliases, instant(self.clock())
        with self.database.transaction() as connection:
            lock_model(connection, name, self.access)
            row = alias_row(connection, name, alias)
            if row is None:
                raise NotFound("alias", f"{name}@{alias}")
            check_match(row, if_match, name, alias)
            mine = sa.and_(table.c.model == name, table.c.alias == alias)
            connection.execute(sa.delete(table).where(mine))
            note_move(
                connection, name, alias, None, row["number"], now, moved_by, "deleted"
            )

    def history(self, name: str, alias: str) -> tuple[AliasMove, ...]:
        """Return every move of an alias, newest first.

        Raises:
            NotFound: There never was such an alias.
        """
        table = tables.alias_moves
        mine = sa.and_(table.c.model == name, table.c.alias == alias)
        query = sa.select(table).where(mine).order_by(table.c.id.desc())
        with self.database.reading() as connection:
            check_seen(connection, name, self.access)
            rows = connection.execute(query).mappings().all()
        if not rows:
            raise NotFound("alias", f"{name}@{alias}")
        fields = AliasMove.__dataclass_fields__
        return tuple(AliasMove(**{key: row[key] for key in fields}) for row in rows)
