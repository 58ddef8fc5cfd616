"""The settings that a stack would start with, beside those of its last start."""

import os

from deploy import valkey
from deploy.folder import Folder
from services.settings import Settings, read_settings


def given_settings(folder: Folder) -> Settings:
    """Those of the environment, for the stack of a folder.

    Raises:
        services.settings.SettingsError: A ``SPNODE_`` variable is wrong.
    """
    read_settings()
    return Settings(data_folder=folder.path, redis_url=valkey.redis_url(folder))


def differing(folder: Folder) -> list[str]:
    """Variables whose settings are not those of the last start, where these are known.

    Raises:
        services.settings.SettingsError: A ``SPNODE_`` variable is wrong.
    """
    given = given_settings(folder).environment()
    if "SPNODE_PORT" not in os.environ:  # the last one is taken again
        del given["SPNODE_PORT"]
    started = folder.read_stack().get("settings", {})
    return [name for name in given if started.get(name, given[name]) != given[name]]
