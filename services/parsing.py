"""Uploaded files are read by a process of their own: limited, and expendable."""

import json
import logging
import signal
from pathlib import Path
from typing import Any

from services import limited
from services.dataset_parser import DISK_FULL
from services.errors import Invalid, Unavailable
from services.settings import Settings

log = logging.getLogger("spnode.parsing")

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
    try:
        done = limited.run(
            "services.dataset_parser",
            *(source, target, limits.max_upload_bytes, limits.max_states),
            memory_bytes=limits.parser_memory_bytes,
            seconds=limits.parser_seconds,
            folder=target.parent,
        )
    except limited.TooDear as error:
        raise _too_dear(limits) from error
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
    reason = limited.last_words(done)
    if done.returncode == DISK_FULL:
        raise Unavailable(f"there is no room to read the file: {reason}")
    if done.returncode > 0:
        raise Invalid(
            "file",
            found=f"a file that cannot be read ({reason[:200]})",
            expected="an npz file with the arrays `states` and `times`",
        )
    answer = json.loads(done.stdout)
    if "error" in answer:
        error = {key: text[:_FOUND_LENGTH] for key, text in answer["error"].items()}
        raise Invalid(**error, code="invalid_dataset")
    return answer["summary"]


def _too_dear(limits: Settings) -> Invalid:
    memory = limits.parser_memory_bytes // 2**20
    return Invalid(
        "file",
        found=f"a file that takes more than {memory} MiB or "
        f"{limits.parser_seconds:g} s to read",
        expected="a smaller dataset, or several",
        code="invalid_dataset",
    )
