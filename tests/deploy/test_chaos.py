"""The fault command: its schedule, its links, its clocks."""

import contextlib
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import pytest

from benchmarks.peers.ports import free_port
from deploy.chaos.clocks import Clocks, can_step
from deploy.chaos.faults import LOCAL, NETWORK
from deploy.chaos.links import Links
from deploy.chaos.schedule import draw
from deploy.chaos.waiting import wait_for

jax.config.update("jax_enable_x64", True)

LENGTHS = {kind: seconds for kind, (_, seconds) in NETWORK.items()}


def test_the_same_seed_draws_the_same_faults_and_another_others() -> None:
    first = draw(7, 1200, LENGTHS, every_s=9.0)
    assert first == draw(7, 1200, LENGTHS, every_s=9.0)
    assert first != draw(8, 1200, LENGTHS, every_s=9.0)
    assert len(first) >= 100, "what a run of twenty minutes is to show"
    times = [each.at_s for each in first]
    assert times == sorted(times)
    assert times[-1] < 1200
    for each in first:
        shortest, longest = LENGTHS[each.kind]
        assert shortest <= each.seconds <= longest


@pytest.mark.parametrize("kinds", [LOCAL, NETWORK], ids=["local", "network"])
def test_a_short_run_meets_every_kind_of_fault(kinds) -> None:
    lengths = {kind: seconds for kind, (_, seconds) in kinds.items()}
    assert len(lengths) >= 8
    found = draw(3, 9.0 * 1.5 * (len(lengths) + 1), lengths, every_s=9.0)
    assert {each.kind for each in found} == set(lengths)


@pytest.fixture
def echo():
    """A server that sends back what it is sent."""
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_link_can_be_cut_slowed_held_and_made_to_refuse(echo) -> None:
    with contextlib.ExitStack() as opened:
        links = Links()
        opened.callback(links.close)
        link = links.add("test", echo)

        def connect() -> socket.socket:
            made = socket.create_connection(("127.0.0.1", link.port), timeout=5)
            return opened.enter_context(made)

        connection = connect()
        assert _asked(connection) == b"hello"
        links.change(link, "slow")
        began = time.monotonic()
        assert _asked(connection) == b"hello"
        assert time.monotonic() - began > 0.25, "there and back"
        links.change(link, "held")
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            _asked(connection)
        links.change(link, "open")
        assert connection.recv(100) == b"hello", "nothing was lost"
        links.change(link, "cut")
        assert _ended(connection)
        assert _ended(connect())
        links.change(link, "errors")
        refused = connect()
        refused.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert refused.recv(1000).startswith(b"HTTP/1.1 503 ")
        links.change(link, "open")
        assert _asked(connect()) == b"hello"


def test_a_link_to_several_passes_over_those_that_take_nothing(echo) -> None:
    with contextlib.ExitStack() as opened:
        links = Links()
        opened.callback(links.close)
        nobody = ("127.0.0.1", free_port())
        link = links.add("test", nobody, echo)
        for _ in range(4):
            connection = socket.create_connection(("127.0.0.1", link.port), timeout=5)
            assert _asked(opened.enter_context(connection)) == b"hello"
        refused = links.add("nobody", nobody, nobody)
        connection = socket.create_connection(("127.0.0.1", refused.port), timeout=5)
        assert _ended(opened.enter_context(connection))


def test_a_clock_is_stepped_for_its_own_processes_alone(tmp_path: Path) -> None:
    if not can_step():
        pytest.skip("libfaketime is not installed, or does not run here")
    clocks = Clocks(tmp_path / "clocks", one=False)
    tell = "import time\nwhile True: input(); print(time.time(), time.monotonic())"
    with subprocess.Popen(
        [sys.executable, "-u", "-c", tell],
        env=os.environ | clocks.environment("it"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def is_ahead(seconds: float) -> bool:
            process.stdin.write("\n")
            process.stdin.flush()
            told, monotonic = map(float, process.stdout.readline().split())
            assert abs(monotonic - time.monotonic()) < 60
            return abs(told - time.time() - seconds) < 60

        assert is_ahead(0)
        clocks.environment("other")
        clocks.step("other", -3600)
        for seconds in (3600, -3600, 0):
            clocks.step("it", seconds)
            wait_for(lambda ahead=seconds: is_ahead(ahead), 20, "the clock", tmp_path)
        process.kill()
    clocks.close()
    left = [str(each) for each in Path("/dev/shm").glob(f"*faketime*_{process.pid}")]
    assert left == []


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            while data := self.request.recv(1000):
                self.request.sendall(data)


def _asked(connection: socket.socket) -> bytes:
    connection.sendall(b"hello")
    return connection.recv(100)


def _ended(connection: socket.socket) -> bool:
    connection.settimeout(5)
    try:
        return connection.recv(100) == b""
    except ConnectionError:
        return True
