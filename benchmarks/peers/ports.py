"""Ports of 127.0.0.1 for servers that are about to start."""

import contextlib
import secrets
import socket

# Below those that the system gives to outgoing connections, which may take one between
# the look and the server's start.
_PORTS = range(11_000, 32_000)


def free_port() -> int:
    """A port that is free now."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different: held together, then let go."""
    ports: list[int] = []
    with contextlib.ExitStack() as held:
        while len(ports) < count:
            port = secrets.choice(_PORTS)
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                ports.append(port)
    return ports
