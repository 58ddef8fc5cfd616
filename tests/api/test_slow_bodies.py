"""Bodies that come slowly hold no connection for longer than the settings say."""

import json
import socket
import time
from urllib.parse import urlsplit

import pytest

from tests.api.deployment import deployed
from tests.api.serving import serving

PATHS = ("/v1/rollout", "/v1/jobs", "/v1/datasets", "/v2/models/m/infer", "/v1/keys")


@pytest.fixture(scope="module")
def door():
    with deployed(body_seconds=1.0) as made, serving(made.settings) as url:
        yield urlsplit(url).port, made.key


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def head(path: str, key: str, length: int) -> bytes:
    kind = "application/x-npz" if path == "/v1/datasets" else "application/json"
    lines = (
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"X-API-Key: {key}",
        f"Content-Type: {kind}",
        f"Content-Length: {length}",
        "\r\n",
    )
    return "\r\n".join(lines).encode()


def everything(one: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    parts = []
    while part := one.recv(65536):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("path", PATHS)
def test_a_body_that_does_not_come_ends_the_connection(door, path) -> None:
    port, key = door
    with connected(port) as one:
        one.sendall(head(path, key, 100) + b"{" + b" " * 9)
        began = time.monotonic()
        answer = everything(one)
    took = time.monotonic() - began
    assert answer.startswith(b"HTTP/1.1 408 "), answer
    assert b"\r\nconnection: close\r\n" in answer.lower()
    body = json.loads(answer.partition(b"\r\n\r\n")[2])
    said = body.get("detail") or body["error"]
    assert "found 10 bytes of the body in 1 s; expected" in said, body
    assert 0.9 < took < 15


def test_a_drop_now_and_then_does_not_help(door) -> None:
    port, key = door
    with connected(port) as one:
        one.sendall(head("/v1/jobs", key, 10_000))
        for _ in range(75):
            try:
                one.sendall(b" ")
            except OSError:
                break  # closed from over there
            time.sleep(0.2)
        else:
            pytest.fail("15 seconds of drops were waited for")


def test_a_slow_line_is_waited_for(door) -> None:
    port, key = door
    length = 200_000
    with connected(port) as one:
        one.sendall(head("/v1/jobs", key, length + 2))
        for _ in range(10):
            one.sendall(b" " * (length // 10))
            time.sleep(0.3)
        one.sendall(b"{}")
        status = one.recv(65536)
    # It took three seconds, and was read to its end.
    assert status.startswith(b"HTTP/1.1 422 "), status
