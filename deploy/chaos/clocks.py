"""Clocks of processes that can be stepped, by libfaketime; the machine's never is.

The library is loaded into a process when it starts and adds to the time of day that it
asks for what a file says::

    LD_PRELOAD=libfaketime.so.1     clocks/<name>: +3600
    time.time()       ──▶  an hour ahead, a second after the file has changed
    time.monotonic()  ──▶  as it was

Times of files are the kernel's, as they were.
"""

import functools
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

CACHE_S = 1
"""For how long a process goes by what it last read in its file."""
_LEFT = ("faketime_shm_", "sem.faketime_sem_")
_SHARED_MEMORY = Path("/dev/shm")


class Clocks:
    """The clocks of a deployment.

    Args:
        folder: Where their files are.
        one: All processes have one clock, as on one machine; else each has its own.
    """

    def __init__(self, folder: Path, *, one: bool) -> None:
        self.folder = folder
        self.one = one
        self.ahead: dict[str, int] = {}
        """By how many seconds each is ahead."""

    def environment(self, process: str) -> dict[str, str]:
        """Variables that give a process a clock; none where it cannot be stepped."""
        if not can_step():
            return {}
        name = "all" if self.one else process
        if name not in self.ahead:
            self.step(name, 0)
        return _environment(self.folder / name)

    def step(self, name: str, ahead_s: int) -> None:
        """Set a clock to so many seconds ahead of the machine's."""
        self.ahead[name] = ahead_s
        _write(self.folder / name, ahead_s)

    def close(self) -> None:
        """Remove what the library leaves of processes that were killed."""
        for each in _LEFT:
            for path in _SHARED_MEMORY.glob(f"{each}*"):
                pid = path.name.removeprefix(each)
                if pid.isdigit() and not psutil.pid_exists(int(pid)):
                    path.unlink(missing_ok=True)


@functools.cache
def can_step() -> bool:
    """Whether the library is installed and does on this machine what it should."""
    library = _library()
    if library is None or sys.platform != "linux":
        return False
    # Ahead at once, from a file that need not change.
    given = {"LD_PRELOAD": os.fspath(library), "FAKETIME": "+3600"}
    told = subprocess.run(
        [sys.executable, "-I", "-c", "import time; print(time.time())"],
        env=os.environ | given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return told.returncode == 0 and float(told.stdout) - time.time() > 3000


def _library() -> Path | None:
    """Found without importing the package, which changes the environment."""
    found = importlib.util.find_spec("libfaketime")
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / "vendor/libfaketime/src/libfaketime.so.1"
    return path if path.exists() else None


def _environment(file: Path) -> dict[str, str]:
    return {
        "LD_PRELOAD": os.fspath(_library() or ""),
        "FAKETIME_TIMESTAMP_FILE": os.fspath(file),
        "FAKETIME_CACHE_DURATION": str(CACHE_S),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }


def _write(file: Path, ahead_s: int) -> None:
    """Replace it at once; equally long, since threads read it into one buffer."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text(f"{ahead_s:+05d}\n")
    new.replace(file)
