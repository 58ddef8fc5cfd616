"""What hurts a deployment does what it says, and what waits for one is not misled."""

import http.server
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks.peers.ports import free_port
from deploy.chaos.clocks import Clocks
from deploy.chaos.deployment import TIMES, Deployment
from deploy.chaos.faults import LOCAL, NETWORK, Fault
from deploy.chaos.links import PUTS_FOR_ONE_404, Links
from deploy.chaos.schedule import Planned
from deploy.chaos.waiting import wait_for
from services.settings import Settings

READY = {
    "checks": {"database": "ok", "queue": "ok", "models": "warm"},
    "workers": {"training": 0, "rollouts": 0},
}
AWAY = READY | {"checks": READY["checks"] | {"queue": "does not answer"}}
PROBLEM = {"type": "about:blank", "status": 500, "code": "internal_error"}


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    """One in which nothing runs."""
    settings = Settings(data_folder=tmp_path / "data")
    clocks = Clocks(tmp_path / "clocks", one=True)
    broker = tmp_path / "none"
    it = Deployment(tmp_path, tmp_path, settings, Links(), clocks, broker)
    yield it
    it.close()


def test_a_gateway_that_answers_with_a_problem_is_waited_for(
    deployment: Deployment,
) -> None:
    # Of a 503 database and queue may be well: models are not warm yet.
    said = [(500, PROBLEM), (503, READY), (200, AWAY), (200, READY)]
    asked = []

    class Gateway(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            status, content = said[len(asked) - 1]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        deployment.urls = [f"http://127.0.0.1:{server.server_port}"]
        deployment.wait_until_ready()
        server.shutdown()
        thread.join()
    assert asked == ["/health/ready"] * len(said)


SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
# One with a child, as the processes of PostgreSQL are.
SLEEP_TWICE = f"import subprocess; subprocess.run({SLEEP})"


@pytest.mark.parametrize(
    ("kind", "name", "where"),
    [
        ("freeze gateway", "gateway-1", (LOCAL, NETWORK)),
        ("freeze broker", "broker", (LOCAL, NETWORK)),
        ("freeze database", "database", (NETWORK,)),
    ],
)
def test_what_is_frozen_stands_still_until_it_is_woken(
    deployment: Deployment, kind: str, name: str, where: tuple[dict[str, Fault], ...]
) -> None:
    planned = Planned(0.0, kind, 2.0, 0.5)
    freeze, (_, longest_s) = where[-1][kind]
    assert all(kind in faults for faults in where)
    assert freeze(deployment, planned) is None, "there is none"
    frozen = deployment.add(name, [sys.executable, "-c", SLEEP_TWICE], {})
    wait_for(lambda: len(frozen.family()) == 2, 20, "its child", deployment.logs)
    worker = deployment.add("worker-1", SLEEP, {})

    def states(process) -> set[str]:
        return {each.status() for each in process.family()}

    hit = freeze(deployment, planned)
    assert hit is not None
    assert hit.whom == name
    stopped = {psutil.STATUS_STOPPED}
    wait_for(lambda: states(frozen) == stopped, 5, name, deployment.logs)
    assert not states(worker) & stopped
    hit.end()
    wait_for(lambda: not states(frozen) & stopped, 5, name, deployment.logs)
    if name == "database":
        assert longest_s < TIMES["lease_seconds"], "no lease may end meanwhile"


def test_a_restarted_store_comes_back(deployment: Deployment) -> None:
    restart, _ = NETWORK["restart store"]
    planned = Planned(0.0, "restart store", 0.1, 0.5)
    assert restart(deployment, planned) is None, "there is none"
    store = deployment.add("store", SLEEP, {})
    hit = restart(deployment, planned)
    assert hit is not None
    assert not store.is_up
    time.sleep(0.2)
    deployment.keep_up()
    assert store.is_up
    assert store.starts == 2


def test_a_store_that_fails_misses_its_bucket_for_puts_alone() -> None:
    links = Links()
    try:
        link = links.add("test", ("127.0.0.1", free_port()))
        links.change(link, "errors")

        def told(method: str) -> bytes:
            with socket.create_connection(("127.0.0.1", link.port), timeout=5) as made:
                made.sendall(f"{method} /a/b HTTP/1.1\r\n\r\n".encode())
                answer = b""
                while data := made.recv(1000):
                    answer += data
            head, _, content = answer.partition(b"\r\n\r\n")
            assert f"Content-Length: {len(content)}".encode() in head
            return head.split()[1]

        for method in ("GET", "HEAD", "POST", "DELETE"):
            # One that is said not to be there would be believed.
            assert {told(method) for _ in range(PUTS_FOR_ONE_404)} == {b"503"}
        puts = [told("PUT") for _ in range(2 * PUTS_FOR_ONE_404)]
        assert puts.count(b"404") == 2
        assert set(puts) == {b"404", b"503"}
    finally:
        links.close()
