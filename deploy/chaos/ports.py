"""Free ports, and waiting for what listens on them."""

import contextlib
import socket
import time
from collections.abc import Callable
from pathlib import Path

from deploy.stack import StackError


def free_port() -> int:
    """A port of 127.0.0.1 that is free now."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different: held together, then let go."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


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
