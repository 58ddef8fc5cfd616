"""Brings a database to the schema of this version; safe when two processes start.

The whole upgrade is one transaction that excludes every other upgrade, so a second
process waits and then finds nothing to do, and a failed one leaves nothing behind.

While versions are changed, processes of the one before may end and start again on a
schema that they do not know. They work with it if it says so: see ``compatibility`` in
``services.database.tables``.
"""

import logging
import sys
import time
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError

from services.database import tables
from services.database.engine import Database
from services.errors import Unavailable
from services.settings import settings_or_exit

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
        config = configuration()
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            if _is_newer_and_fits(connection):
                log.warning(
                    "the database has the schema of a newer version, which fits"
                )
                return
            raise Unavailable(
                f"this database is of another version of spnode ({error}); start that "
                "version, or restore a backup"
            ) from error


def fits(database: Database) -> bool:
    """Whether this version works with the schema as it is."""
    with database.reading() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return False
        head = ScriptDirectory.from_config(configuration()).get_current_head()
        return _revision(connection) == head or _is_newer_and_fits(connection)


def _revision(connection: sa.Connection) -> str | None:
    table = sa.table("alembic_version", sa.column("version_num"))
    return connection.execute(sa.select(table.c.version_num)).scalar_one_or_none()


def is_newer(connection: sa.Connection) -> bool:
    """Whether the schema is one that this version does not know."""
    has_any = sa.inspect(connection).has_table("alembic_version")
    return has_any and _revision(connection) not in _known()


def _is_newer_and_fits(connection: sa.Connection) -> bool:
    has = sa.inspect(connection).has_table
    if not is_newer(connection) or not has(tables.compatibility.name):
        return False
    since = connection.execute(sa.select(tables.compatibility.c.since)).scalar()
    return since in _known()


def _known() -> set[str]:
    scripts = ScriptDirectory.from_config(configuration()).walk_revisions()
    return {each.revision for each in scripts}


def configuration() -> Config:
    """Return Alembic's configuration; the connection is its caller's to add."""
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
