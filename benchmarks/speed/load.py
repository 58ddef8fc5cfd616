"""A load generator: connections that send one request again and again, on one thread.

It knows only as much of HTTP as it needs to see where an answer ends, so that a request
costs it some 10 us and the server is what is measured; how busy it was is told.
"""

import re
import select
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: *(\d+)")
_LAST_CHUNK = b"\r\n0\r\n\r\n"
_DRAIN_S = 120.0


@dataclass(frozen=True)
class Load:
    """What came of a load.

    Args:
        answers: How many were complete within it.
        failures: How many of them had another status than 200.
        seconds: How long it was.
        latencies_s: Of each answer.
        client_cpu_s: CPU time of this side.
    """

    answers: int
    failures: int
    seconds: float
    latencies_s: np.ndarray
    client_cpu_s: float

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds

    @property
    def p50_s(self) -> float:
        """The median latency."""
        return float(np.median(self.latencies_s))


def post(path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """A request as bytes."""
    return _head("POST", path, {"Content-Length": f"{len(body)}", **headers}) + body


def get(path: str, headers: Mapping[str, str]) -> bytes:
    """A request without a body as bytes."""
    return _head("GET", path, headers)


def _head(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def drive(
    port: int, request: bytes, *, connections: int, seconds: float, each: int = 1
) -> Load:
    """Send the request on so many connections, each again when its answer is there.

    Args:
        port: On 127.0.0.1.
        request: As bytes.
        connections: How many.
        seconds: For how long at least.
        each: Answers for each connection, on average, at least: the first ones after
            a pause find the server idle and are in small batches.

    Raises:
        ConnectionError: The server closed a connection.
        TimeoutError: It stopped answering.
    """
    sockets = {}
    with select.epoll() as epoll:
        try:
            for _ in range(connections):
                one = socket.create_connection(("127.0.0.1", port))
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sockets[one.fileno()] = one
                epoll.register(one, select.EPOLLIN)
            return _driven(epoll, sockets, request, seconds, each * connections)
        finally:
            for one in sockets.values():
                one.close()


def _driven(
    epoll: select.epoll,
    sockets: dict[int, socket.socket],
    request: bytes,
    seconds: float,
    least: int,
) -> Load:
    parts: dict[int, bytes] = {}
    latencies: list[float] = []
    failures, ended = 0, None
    cpu, began = time.thread_time(), time.perf_counter()
    end = began + seconds
    sent = dict.fromkeys(sockets, began)
    for one in sockets.values():
        one.sendall(request)
    while sent:
        ready = epoll.poll(_DRAIN_S)
        if not ready:
            raise TimeoutError(f"no answer within {_DRAIN_S:g} s")
        for number, _ in ready:
            data = sockets[number].recv(1 << 20)
            if not data:
                raise ConnectionError("the server closed a connection")
            if number in parts:
                data = parts.pop(number) + data
            if not _is_whole(data):
                parts[number] = data
                continue
            now = time.perf_counter()
            began_at = sent.pop(number)
            if ended is not None:
                # The server may close it when it has been idle for some seconds.
                epoll.unregister(number)
                continue
            latencies.append(now - began_at)
            failures += data[9:12] != b"200"
            if now > end and len(latencies) >= least:
                ended = now
                epoll.unregister(number)
                continue
            sent[number] = now
            sockets[number].sendall(request)
    assert ended is not None
    cpu = time.thread_time() - cpu
    return Load(len(latencies), failures, ended - began, np.array(latencies), cpu)


def _is_whole(data: bytes) -> bool:
    head = data.find(b"\r\n\r\n")
    if head < 0:
        return False
    found = LENGTH.search(data, 0, head)
    if found is None:
        return data.endswith(_LAST_CHUNK)
    return len(data) >= head + 4 + int(found[1])
