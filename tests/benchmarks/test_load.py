"""The load generator against a server whose answers are known."""

import pytest

from benchmarks.speed.load import drive, post
from tests.benchmarks.listener import Listener

ANSWERS = {
    "length": (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n", b"four"),
    "chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"4\r\nfour\r\n0\r\n\r\n",
    ),
    "refused": (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", b""),
}


class Server(Listener):
    """Answers each request on each connection, head and body apart."""

    def __init__(self, answer, requests_until_close=None):
        self.answer, self.left = answer, requests_until_close
        self.received = []
        super().__init__()

    def serve(self, connection):
        while request := connection.recv(65536):
            self.received.append(request)
            if self.left is not None and len(self.received) > self.left:
                return
            for part in self.answer:
                connection.sendall(part)


@pytest.fixture
def serve():
    servers = []

    def start(*arguments):
        servers.append(Server(*arguments))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


REQUEST = post("/there", b"{}", {"Accept": "*/*"})


@pytest.mark.parametrize("kind", ["length", "chunks"])
def test_every_answer_is_counted_once(serve, kind):
    server = serve(ANSWERS[kind])
    load = drive(server.port, REQUEST, connections=3, seconds=0.1)
    assert load.failures == 0
    # Those that were on their way at the end are not counted.
    assert load.answers <= len(server.received) <= load.answers + 3
    assert set(server.received) == {REQUEST}
    assert len(load.latencies_s) == load.answers >= 3
    assert 0 < load.p50_s < load.seconds
    assert load.rate == load.answers / load.seconds


def test_answers_that_are_no_success_are_told(serve):
    load = drive(serve(ANSWERS["refused"]).port, REQUEST, connections=2, seconds=0.05)
    assert load.failures == load.answers > 0


def test_a_window_lasts_until_there_are_enough_answers(serve):
    server = serve(ANSWERS["length"])
    load = drive(server.port, REQUEST, connections=2, seconds=0.0, each=50)
    assert load.answers == 100


def test_a_connection_that_is_closed_is_an_error(serve):
    server = serve(ANSWERS["length"], 5)
    with pytest.raises(ConnectionError, match="closed"):
        drive(server.port, REQUEST, connections=2, seconds=5.0)


def test_a_request_says_its_length():
    assert REQUEST.startswith(b"POST /there HTTP/1.1\r\n")
    assert b"Content-Length: 2\r\n" in REQUEST
    assert REQUEST.endswith(b"\r\n\r\n{}")
