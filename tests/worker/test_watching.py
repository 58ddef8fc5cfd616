"""Whoever watches a worker sees whether it lives, and whether it is warm."""

import threading
import types

import httpx
import pytest

from benchmarks.peers.ports import free_port
from services.settings import Settings
from worker.watching import watched


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_worker_is_ready_when_it_is_warm(tmp_path, host) -> None:
    port = free_port()
    settings = Settings(data_folder=tmp_path, host=host, metrics_port=port)
    context = types.SimpleNamespace(settings=settings, warm=threading.Event())
    watched(context)
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    with httpx.Client(base_url=url, trust_env=False) as client:
        assert client.get("/live").status_code == 200
        assert client.get("/ready").status_code == 503
        context.warm.set()
        assert client.get("/ready").status_code == 200
        assert "python_info" in client.get("/metrics").text
