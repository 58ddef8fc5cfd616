"""A database that hangs takes nobody's view of the gateway."""

import contextlib
import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from tests.api.deployment import deployed, wait_for
from tests.api.serving import serving
from tests.postgres import postgres as started

AWAY = {"database": "does not answer", "queue": "ok", "models": "warm"}


@pytest.fixture(scope="module")
def postgres():
    """A real server, which the test may freeze."""
    with started() as (server, url):
        yield server, f"{url}/postgres"


@contextlib.contextmanager
def frozen(server):
    """Stop the server and each of its processes, which have groups of their own."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
    pids = [server.pid, *map(int, children.read_text().split())]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)


def test_a_gateway_stays_ready_and_its_metrics_tell(postgres):
    server, url = postgres
    with (
        deployed(database_url=url) as data,
        serving(data.settings) as address,
        httpx.Client(base_url=address, timeout=30, trust_env=False) as prometheus,
    ):
        prometheus.headers["x-api-key"] = data.new_key("metrics")

        def told():
            answer = prometheus.get("/metrics")
            assert answer.status_code == 200, answer.text
            lines = answer.text.splitlines()
            names = ("spnode_database_up", "spnode_queue_up")
            return [line for line in lines if line.startswith(names)]

        def is_ready():
            answer = prometheus.get("/health/ready")
            return answer.status_code, answer.json()["checks"]

        wait_for(lambda: is_ready()[0] == 200, 60)
        assert told() == ["spnode_database_up 1.0", "spnode_queue_up 1.0"]
        with frozen(server):
            time.sleep(1.1)  # the key was believed for a second
            began = time.monotonic()
            assert is_ready() == (200, AWAY)
            assert told() == ["spnode_database_up 0.0", "spnode_queue_up 1.0"]
            assert time.monotonic() - began < 10, "before Prometheus gives up"
        wait_for(lambda: told()[0] == "spnode_database_up 1.0", 60)
        refused = prometheus.get("/v1/models")
        assert refused.status_code == 403, "a key for metrics reads nothing else"
