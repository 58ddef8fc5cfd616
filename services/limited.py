"""Processes of their own for what may be hostile or dear: limited, and expendable.

``run`` starts one; it limits itself by ``limit_to`` before it imports what it needs.
"""

import math
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

_SOURCE_TREE = Path(__file__).parent.parent
# The stacks of a pool of threads count against the address space.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class TooDear(Exception):
    """It took more memory or time than it may."""


def run(
    module: str,
    *arguments: object,
    memory_bytes: int,
    seconds: float,
    folder: Path = _SOURCE_TREE,
    given: bytes = b"",
) -> "subprocess.CompletedProcess[bytes]":
    """Run a module of ours to its end, with limits of its own.

    Args:
        module: It is told the limits, bytes and whole seconds, after its arguments.
        *arguments: What else it is told.
        memory_bytes: Address space.
        seconds: Of the clock, and of a processor.
        folder: Where it runs.
        given: Its standard input.

    Returns:
        Its end, and what it printed.

    Raises:
        TooDear: It was ended for what it took.
    """
    told = (*arguments, memory_bytes, math.ceil(seconds))
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, *map(str, told)],
            cwd=folder,
            env=environment(),
            input=given,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TooDear from error
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise TooDear
    return done


def environment() -> dict[str, str]:
    """Variables of such a process: it is told nothing of the deployment."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": str(_SOURCE_TREE),
        **dict.fromkeys(_ONE_THREAD, "1"),
    }


def last_words(done: "subprocess.CompletedProcess[bytes]") -> str:
    """The last line that it wrote as an error; empty without one."""
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def limit_to(memory_bytes: int, seconds: int) -> None:
    """Limit this process; it leaves no core behind."""
    limit(resource.RLIMIT_AS, memory_bytes)
    limit(resource.RLIMIT_CPU, seconds)
    limit(resource.RLIMIT_CORE, 0)


def limit(what: int, value: int) -> None:
    """Limit one thing of this process, where it is not limited closer already."""
    _, hard = resource.getrlimit(what)
    most = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (most, most))
