"""The data folder of an embedded stack: what lies where.

::

    .spnode/
    ├── key              the API key, mode 0600
    ├── stack.json       address, port and settings of the last start
    ├── supervisord.conf valkey.conf
    ├── logs/            one file a process
    ├── valkey/          its append-only file
    └── spnode.db store/ what the services keep
"""

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LONGEST_SOCKET_PATH = 100
"""Linux takes 107 bytes, macOS 103, for the name of a Unix socket."""


@dataclass(frozen=True)
class Folder:
    """Paths inside one data folder."""

    path: Path

    @property
    def key(self) -> Path:
        """The file that holds the API key."""
        return self.path / "key"

    @property
    def stack(self) -> Path:
        """What the last start chose, as JSON."""
        return self.path / "stack.json"

    @property
    def logs(self) -> Path:
        """One log file a process."""
        return self.path / "logs"

    @property
    def supervisor_log(self) -> Path:
        """Starts, exits and restarts of every process."""
        return self.logs / "supervisord.log"

    @property
    def sockets(self) -> Path:
        """Where sockets lie: here, or where the path to here is too long for one."""
        if len(os.fsencode(self.path / "supervisor.sock")) <= LONGEST_SOCKET_PATH:
            return self.path
        digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"spnode-{os.getuid()}-{digest}"

    @property
    def supervisor_socket(self) -> Path:
        """Control socket of the supervisor."""
        return self.sockets / "supervisor.sock"

    @property
    def valkey_socket(self) -> Path:
        """Socket of the embedded Valkey."""
        return self.sockets / "valkey.sock"

    def create(self) -> None:
        """Make the folder and its parts, readable by their owner alone."""
        for part in (self.path, self.logs, self.path / "valkey", self.sockets):
            part.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.stat(self.sockets).st_uid != os.getuid():
            raise PermissionError(f"{self.sockets} belongs to another user")
        os.chmod(self.sockets, 0o700)

    def read_stack(self) -> dict[str, Any]:
        """What the last start chose; empty before the first."""
        try:
            return json.loads(self.stack.read_text())
        except (FileNotFoundError, ValueError):
            return {}

    def read_key(self) -> str | None:
        """The API key, or None before there is one."""
        try:
            return self.key.read_text().strip() or None
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against another start or stop; the kernel frees it."""
        self.create()
        with (self.path / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def find_folder() -> Folder:
    """The data folder of ``SPNODE_DATA_FOLDER``, or ``.spnode`` in the source tree."""
    chosen = os.environ.get("SPNODE_DATA_FOLDER")
    path = Path(chosen).expanduser() if chosen else ROOT / ".spnode"
    return Folder(path.absolute())


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner reads; it appears whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    os.replace(part, path)
