"""Uploaded files are read by a process of their own: limited, and expendable."""

import json
import logging
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from services.dataset_parser import DISK_FULL
from services.errors import Invalid, Unavailable
from services.settings import Settings

log = logging.getLogger("spnode.parsing")

_SOURCE_TREE = Path(__file__).parent.parent
_FOUND_LENGTH = 1000


def parse(source: Path, target: Path, limits: Settings) -> dict[str, Any]:
    """Have an uploaded file read and its canonical form written.

    Args:
        source: The file as it was sent; it may be anything.
        target: Where the canonical form is written.
        limits: Bytes, memory and seconds of the process that reads it.

    Returns:
        The summary of the dataset.

    Raises:
        Invalid: What is wrong with the file, where, and what belongs there.
        Unavailable: There is no room for it.
    """
    command = [
        sys.executable,
        *("-m", "services.dataset_parser", str(source), str(target)),
        *(str(limits.max_upload_bytes), str(limits.parser_memory_bytes)),
        str(math.ceil(limits.parser_seconds)),
    ]
    try:
        done = subprocess.run(
            command,
            cwd=target.parent,
            env=_parser_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limits.parser_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _too_dear(limits) from error
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise _too_dear(limits)
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        # A library that cannot take damage, or one that aborts for want of memory.
        log.warning("reading an uploaded file ended its process by %s", name)
        raise Invalid(
            "file",
            found=f"a file that ended the process which reads it ({name})",
            expected="a file that is whole, and smaller where it is large: at most "
            f"{limits.parser_memory_bytes // 2**20} MiB are taken to read it",
            code="invalid_dataset",
        )
    reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
    if done.returncode == DISK_FULL:
        raise Unavailable(f"there is no room to read the file: {' '.join(reason)}")
    if done.returncode > 0:
        raise Invalid(
            "file",
            found=f"a file that cannot be read ({' '.join(reason)[:200]})",
            expected="an npz file with the arrays `states` and `times`",
        )
    answer = json.loads(done.stdout)
    if "error" in answer:
        error = {key: text[:_FOUND_LENGTH] for key, text in answer["error"].items()}
        raise Invalid(**error, code="invalid_dataset")
    return answer["summary"]


def _parser_environment() -> dict[str, str]:
    # One thread: the stacks of a pool of threads count against the address space.
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": str(_SOURCE_TREE),
        **dict.fromkeys(threads, "1"),
    }


def _too_dear(limits: Settings) -> Invalid:
    memory = limits.parser_memory_bytes // 2**20
    return Invalid(
        "file",
        found=f"a file that takes more than {memory} MiB or "
        f"{limits.parser_seconds:g} s to read",
        expected="a smaller dataset, or several",
        code="invalid_dataset",
    )
