"""A peer's program as a process that answers calls, a JSON line each."""

import json
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.peers.environment import ROOT, PeerError
from benchmarks.speed.turns import Contestant, Took


class Program:
    """A program of ``benchmarks/peers`` in the environment of a peer.

    Ended with the ``with`` block, and with us: it stops where its input ends.

    Args:
        python: The interpreter.
        module: Its name below ``benchmarks.peers``.
        log: Where what it says goes.
    """

    def __init__(self, python: Path, module: str, log: Path) -> None:
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [os.fspath(python), "-P", "-m", f"benchmarks.peers.{module}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env={**os.environ, "PYTHONPATH": os.fspath(ROOT)},
            )

    def call(self, name: str, /, **arguments: Any) -> dict[str, Any]:
        """Call a function of the program.

        Raises:
            PeerError: It failed or the program ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps([name, arguments]) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise PeerError(f"it ended: {self._log.read_text()[-2000:]}")
        return json.loads(line)

    def contestant(self, name: str) -> Contestant:
        """What it has made ready under a name."""
        return lambda: Took(**self.call("measure", name=name))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
