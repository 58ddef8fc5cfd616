"""Callers who do not wait, against a server whose answers are known."""

import time

import pytest

from benchmarks.speed.load import post
from benchmarks.speed.open_load import send
from tests.benchmarks.listener import Listener

REQUEST = post("/", b"x" * 10, {})


class Slow(Listener):
    """Answers each request after a while; every third is refused."""

    def __init__(self, delay_s, answers):
        self.delay_s, self.answers, self.seen = delay_s, answers, 0
        super().__init__()

    def serve(self, connection):
        while connection.recv(65536):
            answer = self.answers[self.seen % len(self.answers)]
            self.seen += 1
            time.sleep(self.delay_s)
            if answer is None:
                return
            connection.sendall(answer)


@pytest.fixture
def slow():
    servers = []

    def start(*arguments):
        servers.append(Slow(*arguments))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def test_requests_go_out_on_time_though_earlier_ones_are_not_answered(slow):
    server = slow(0.5, [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"])
    began = time.monotonic()
    answers = send(server.port, REQUEST, rate=40, seconds=1.0)
    # One after another they would take 20 seconds.
    assert time.monotonic() - began < 8
    assert len(answers) == server.seen == 40
    assert [each.due_s for each in answers] == [n / 40 for n in range(40)]
    assert all(each.status == 200 and each.latency_s >= 0.5 for each in answers)


def test_refusals_and_lost_connections_are_told_apart(slow):
    server = slow(
        0.0,
        [
            b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
            None,
        ],
    )
    answers = send(server.port, REQUEST, rate=30, seconds=0.2)
    assert [(each.status, each.says_when) for each in answers] == [
        (503, True),
        (503, False),
        (0, False),
    ] * 2
    server.close()


def test_a_server_that_is_not_there_loses_every_request(slow):
    server = slow(0.0, [None])
    server.close()
    time.sleep(0.05)
    answers = send(server.port, REQUEST, rate=20, seconds=0.2)
    assert [each.status for each in answers] == [0] * 4
