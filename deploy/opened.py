"""Database and store of a deployment, opened from its shell: no gateway is needed.

They are those of the data folder, or of ``SPNODE_DATABASE_URL`` and
``SPNODE_STORE_URL``, or those that the command line names. Services may use them
meanwhile.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from deploy.folder import find_folder
from services.blobs import Blobs
from services.database.engine import Database
from services.database.migrate import fits, upgrade
from services.errors import ServiceError
from services.settings import Settings, read_settings
from spnode_client.errors import ClientError
from spnode_client.terminal import UsageError


def find_settings() -> Settings:
    """The settings of the deployment whose data folder this is.

    Raises:
        services.settings.SettingsError: A ``SPNODE_`` variable is wrong.
    """
    read_settings()
    return Settings(data_folder=find_folder().path)


@contextmanager
def opened(
    database_url: str | None = None, store_url: str | None = None, *, make: bool = False
) -> Iterator[tuple[Database, Blobs]]:
    """Open database and store; what the services refuse becomes a sentence.

    Args:
        database_url: Another than the settings'.
        store_url: Likewise; both or neither.
        make: Whether a database that is empty is given its tables.

    Raises:
        UsageError: One URL is given without the other.
        ClientError: There is no database, or one of another version of spnode.
    """
    if (database_url is None) != (store_url is None):
        raise UsageError("--database and --store go together: they are one registry")
    settings = find_settings()
    database = Database(database_url or settings.database_url)
    try:
        _check(database, make)
        yield database, Blobs(store_url or settings.store_url)
    except ServiceError as error:
        raise ClientError(str(error)) from error
    finally:
        database.close()


def _check(database: Database, make: bool) -> None:
    shown = database.url.render_as_string(hide_password=True)
    path = database.url.database
    is_missing = database.is_sqlite and path and not Path(path).exists()
    if not is_missing:
        with database.reading() as connection:
            is_missing = not sa.inspect(connection).get_table_names()
    if is_missing and make:
        upgrade(database)
    elif is_missing:
        raise ClientError(
            f"{shown} holds nothing; SPNODE_DATA_FOLDER names another data folder, "
            "--database and --store other addresses"
        )
    elif not fits(database):
        raise ClientError(
            f"{shown} is of another version of spnode; an older one is migrated when "
            "the services of this version start"
        )
