"""Processes that the tool starts and, as a supervisor would, starts again."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from deploy.folder import ROOT
from services.settings import PREFIX

RESTART_S = 0.5
"""A process that ended is started again after this time."""
STOP_S = 20.0


@dataclass
class Process:
    """A process that is kept up.

    Args:
        name: Of its log and in the report.
        command: What is run; it ends with this process.
        environment: Its settings.
        folder: Where its log goes.
    """

    name: str
    command: Sequence[str]
    environment: dict[str, str]
    folder: Path
    starts: int = 0
    down_until: float | None = None
    """When it is started again, where it is down."""
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def log(self) -> Path:
        """What it and its predecessors wrote."""
        return self.folder / f"{self.name}.log"

    @property
    def is_up(self) -> bool:
        """Whether it runs, be it stopped."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "deploy.process", *self.command],
                cwd=ROOT,
                env=clean | {"PYTHONPATH": os.fspath(ROOT)} | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.starts += 1
        self.down_until = None

    def keep_up(self) -> None:
        """Start it again where it ended and its time has come."""
        if self.is_up:
            return
        if self.down_until is None:
            self.down_until = time.monotonic() + RESTART_S
        if time.monotonic() >= self.down_until:
            self.start()

    def kill(self, down_s: float = RESTART_S) -> None:
        """End it at once; it stays down for some seconds."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(STOP_S)
        self.down_until = time.monotonic() + down_s

    def terminate(self) -> None:
        """Ask it to end in good order."""
        assert self._process is not None
        self._process.terminate()

    def ended(self) -> int:
        """Wait for the end that it was asked for; how it ended.

        Raises:
            subprocess.TimeoutExpired: It does not end in time.
        """
        assert self._process is not None
        return self._process.wait(STOP_S)

    def family(self) -> list[psutil.Process]:
        """It and all its descendants; it alone where they cannot be told."""
        if self._process is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            own = psutil.Process(self._process.pid)
            return [own, *own.children(recursive=True)]
        return []

    def children(self) -> list[psutil.Process]:
        """The processes of its jobs: what its fork server started."""
        found = []
        for each in self.family()[1:]:
            with contextlib.suppress(psutil.NoSuchProcess):
                parent = each.parent()
                own = self._process is not None and each.ppid() == self._process.pid
                if not own and parent is not None and each.status() != "zombie":
                    found.append(each)
        return found

    def ask_to_end(self) -> None:
        """Ask it to end for good, and wake what of it is stopped."""
        if self._process is None:
            return
        for each in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                each.resume()
        self._process.terminate()

    def close(self) -> None:
        """Wait until it has ended; end it hard where it does not in time."""
        if self._process is None:
            return
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
