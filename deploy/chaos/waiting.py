"""Waiting for what was started."""

import time
from collections.abc import Callable
from pathlib import Path

from deploy.stack import StackError


def wait_for(is_so: Callable[[], bool], within_s: float, what: str, logs: Path) -> None:
    """Wait until something is so.

    Raises:
        StackError: It is not in time; the message says where the logs are.
    """
    end = time.monotonic() + within_s
    while not is_so():
        if time.monotonic() > end:
            raise StackError(f"{what}: not ready in {within_s:g} s; see {logs}")
        time.sleep(0.1)
