"""A bucket whose server takes connections and never answers."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def silent_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let ``s3://`` mean such a server, here and in processes that start meanwhile."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        variables = {
            "AWS_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_REGION": "us-east-1",
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield
