"""The other side of ``process.Program``: functions that are called by lines of JSON."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from benchmarks.speed.turns import Contestant


def answer_calls(functions: Mapping[str, Callable[..., Any]]) -> None:
    """Answer until the input ends; what else prints goes to the log."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        name, arguments = json.loads(line)
        answers.write(json.dumps(functions[name](**arguments)) + "\n")
        answers.flush()


class Contestants:
    """What was made ready, by name, to be measured again and again."""

    def __init__(self) -> None:
        self._ready: dict[str, Contestant] = {}

    def __setitem__(self, name: str, contestant: Contestant) -> None:
        self._ready[name] = contestant

    def measure(self, name: str) -> dict[str, float]:
        """One round of it."""
        return asdict(self._ready[name]())
