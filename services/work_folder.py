"""Folders for the files of one request or job, which go with it.

::

    work/<what>-<host>-<process>-<random>       of a request: body, upload, …
    work/<host>-<process>-<random>-job_<id>     of a job, made by its worker

A process that is killed leaves its own behind; whoever starts next on the same host
removes those of processes that are gone.
"""

import contextlib
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from services.errors import Unavailable, is_disk_full
from services.settings import Settings

_OF_REQUEST = re.compile(
    r"^(?:body|upload|arrays|plots)-(?P<host>.+)-(?P<pid>[0-9]+)-[0-9a-z_]{8}$"
)
_OF_JOB = re.compile(
    r"^(?P<host>.+)-(?P<pid>[0-9]+)-[0-9a-f]{6}-job_[0-9a-z]+(?:-[0-9]+)?$"
)


def work_folder(settings: Settings) -> Path:
    """Where they lie."""
    return settings.data_folder / "work"


@contextlib.contextmanager
def working(settings: Settings, what: str) -> Iterator[Path]:
    """Give a folder that goes when the block ends.

    Args:
        settings: Where the data folder is.
        what: ``body``, ``upload``, ``arrays`` or ``plots``.

    Raises:
        Unavailable: The disk is full.
    """
    parent = work_folder(settings)
    prefix = f"{what}-{socket.gethostname()}-{os.getpid()}-"
    try:
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as folder:
            yield Path(folder)
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise Unavailable(
            "there is no room on this host's disk", reason=error
        ) from error


def sweep_requests(settings: Settings) -> None:
    """Remove what killed gateways of this host left, before the first request."""
    _sweep(settings, _OF_REQUEST, lambda name: False)


def sweep_jobs(settings: Settings, worker: str) -> None:
    """Remove what killed workers of this host left behind.

    Args:
        settings: Where the data folder is.
        worker: How the folders of this worker's own jobs begin.
    """
    _sweep(settings, _OF_JOB, lambda name: name.startswith(worker))


def _sweep(
    settings: Settings, pattern: re.Pattern[str], is_mine: Callable[[str], bool]
) -> None:
    parent = work_folder(settings)
    for folder in parent.iterdir() if parent.is_dir() else ():
        found = pattern.match(folder.name)
        if found is None or found["host"] != socket.gethostname():
            continue
        pid = int(found["pid"])
        # A container's first process has the number of its predecessor.
        is_left = not _is_running(pid) or pid == os.getpid()
        if is_left and not is_mine(folder.name):
            shutil.rmtree(folder, ignore_errors=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
