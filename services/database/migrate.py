"""Brings a database to the schema of this version; safe when two processes start.

The whole upgrade is one transaction that excludes every other upgrade, so a second
process waits and then finds nothing to do, and a failed one leaves nothing behind.

While versions are changed, processes of the one before may end and start again on a
schema that they do not know. They work with it if it says so: see ``compatibility`` in
``services.database.tables``.

Alembic is imported where there is something to migrate, which is rare: it costs each
start 0.1 s and each process 8 MB.
"""

import functools
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from services.database import tables
from services.database.engine import Database
from services.errors import Unavailable
from services.settings import settings_or_exit

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"
log = logging.getLogger(__name__)

_WAIT_S = 5
_TRIES, _PAUSE_S = 20, 3.0


def upgrade(database: Database) -> None:
    """Apply every migration that the database lacks.

    Raises:
        Unavailable: It does not answer, or has the schema of a newer version that this
            one does not work with.
    """
    if database.is_sqlite and database.url.database:
        folder = Path(database.url.database).parent
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for left in reversed(range(_TRIES)):
        try:
            _upgrade(database)
            return
        except Unavailable as error:
            # Who waits for a table has all wait behind it: rather another time.
            if not left or "lock timeout" not in str(error):
                raise
            time.sleep(_PAUSE_S)


def _upgrade(database: Database) -> None:
    with database.transaction() as connection:
        database.lock(connection, "spnode migrations")
        if not database.is_sqlite:
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_WAIT_S}s'")
        found = _found(connection)
        if found == max(_known()):
            return
        if _is_newer_and_fits(connection):
            log.warning("the database has the schema of a newer version, which fits")
        elif found is not None and found not in _known():
            raise Unavailable(
                f"this database is of another version of spnode (revision {found!r}); "
                "start that version, or restore a backup"
            )
        else:
            _migrate(connection)


def _migrate(connection: sa.Connection) -> None:
    from alembic import command

    config = configuration()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def fits(database: Database) -> bool:
    """Whether this version works with the schema as it is."""
    with database.reading() as connection:
        return _found(connection) == max(_known()) or _is_newer_and_fits(connection)


def _found(connection: sa.Connection) -> str | None:
    """The revision of the schema, None where there is none."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    table = sa.table("alembic_version", sa.column("version_num"))
    return connection.execute(sa.select(table.c.version_num)).scalar_one_or_none()


def is_newer(connection: sa.Connection) -> bool:
    """Whether the schema is one that this version does not know."""
    found = _found(connection)
    return found is not None and found not in _known()


def _is_newer_and_fits(connection: sa.Connection) -> bool:
    has = sa.inspect(connection).has_table
    if not is_newer(connection) or not has(tables.compatibility.name):
        return False
    since = connection.execute(sa.select(tables.compatibility.c.since)).scalar()
    return since in _known()


@functools.cache
def _known() -> frozenset[str]:
    """Revisions by their files' names, which begin with them; the last is the head."""
    files = list((MIGRATIONS / "versions").glob("[0-9]*.py"))
    if not files:
        raise Unavailable(f"there are no migrations in {MIGRATIONS}")
    return frozenset(file.name.partition("_")[0] for file in files)


def configuration() -> "Config":
    """Return Alembic's configuration; the connection is its caller's to add."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def main() -> None:
    """``python -m services.database.migrate``: for whoever upgrades before starting."""
    database = Database(settings_or_exit().database_url)
    try:
        upgrade(database)
    except Unavailable as error:
        sys.exit(str(error))
    finally:
        database.close()


if __name__ == "__main__":
    main()
