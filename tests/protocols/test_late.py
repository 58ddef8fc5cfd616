"""A deadline holds while a request waits for its body, for a turn, for the database."""

import contextlib
import json
import socket
import threading
import time
from urllib.parse import urlsplit

import httpx
import pytest

from api.app import create_app
from api.dependencies import PARSING_THREADS, SQL_THREADS
from tests.api.serving import serving
from tests.protocols.test_refusals import DOORS, TIMES, X0

TIMEOUT_S = 0.5
# How long a request waits that its deadline does not end.
HELD_S = 20.0
# Far below that, for machines that are busy.
SOON_S = 10.0


def native(model="plain@latest", x0=X0):
    return "/v1/rollout", {"model": model, "x0": x0, "times": TIMES}


def is_problem(content):
    return content["code"] == "deadline_passed"


ASKED = {"native": (native, is_problem)} | {
    name: (ask, is_its_form) for name, (ask, is_its_form, *_) in DOORS.items()
}


@pytest.fixture(scope="module")
def app(service):
    return create_app(service.deployment.settings)


@pytest.fixture(scope="module")
def asked(app, service):
    key = {"authorization": f"Bearer {service.key}"}
    with (
        serving(service.deployment.settings, app) as url,
        httpx.Client(base_url=url, headers=key, timeout=60, trust_env=False) as made,
    ):
        assert made.get("/v1/limits").status_code == 200  # its key is known from now on
        yield made


@contextlib.contextmanager
def busy(executor, threads):
    """No thread takes anything until the block ends."""
    done = threading.Event()
    held = [executor.submit(done.wait, HELD_S) for _ in range(threads)]
    try:
        yield
    finally:
        done.set()
        for each in held:
            each.result()


def late(asked, is_its_form, path, content, **headers):
    """An answer that says in time, and in the door's form, that it is too late."""
    began = time.monotonic()
    sent = {"content-type": "application/json", "request-timeout": str(TIMEOUT_S)}
    answer = asked.post(path, content=content, headers=sent | headers)
    assert time.monotonic() - began < SOON_S
    assert answer.status_code == 504, answer.text
    assert is_its_form(answer.json()), answer.text
    assert "deadline" in answer.text


@pytest.mark.parametrize("door", ASKED)
def test_who_waits_to_be_read_is_told_in_time(app, asked, door):
    ask, is_its_form = ASKED[door]
    path, body = ask()
    # Of a large body, which a thread reads.
    large = json.dumps(body).encode() + b" " * 100_000
    with busy(app.state.gateway._parsing, PARSING_THREADS):
        late(asked, is_its_form, path, large)


@pytest.mark.parametrize("door", ASKED)
def test_who_waits_for_the_database_is_told_in_time(app, asked, door):
    ask, is_its_form = ASKED[door]
    path, body = ask(model="forced@latest")  # that nobody has asked for
    with busy(app.state.gateway._sql, SQL_THREADS):
        late(asked, is_its_form, path, json.dumps(body).encode())


@pytest.mark.parametrize("door", ASKED)
def test_whose_body_does_not_come_is_told_in_time(asked, door):
    ask, is_its_form = ASKED[door]
    path, body = ask()
    address = urlsplit(str(asked.base_url))
    with socket.create_connection((address.hostname, address.port)) as connection:
        head = (
            f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n"
            f"request-timeout: {TIMEOUT_S}\r\ncontent-type: application/json\r\n"
            f"authorization: {asked.headers['authorization']}\r\n\r\n"
        )
        connection.sendall(head.encode() + json.dumps(body).encode()[:10])
        connection.settimeout(SOON_S)
        answer = connection.recv(65536)
        # What is still to come of the body would be no request.
        assert connection.recv(65536) == b""
    assert answer.startswith(b"HTTP/1.1 504 "), answer
    assert is_its_form(json.loads(answer.partition(b"\r\n\r\n")[2]))


def test_who_waits_to_be_answered_is_told_in_time(app, asked):
    """The answer is large, and a thread writes it."""
    path, body = native()
    many = {**body, "times": [0.1 * (n + 1) for n in range(1500)]}
    patient = {"request-timeout": "280"}
    assert asked.post(path, json=many, headers=patient, timeout=280).status_code == 200
    with busy(app.state.gateway._parsing, PARSING_THREADS):
        late(asked, is_problem, path, json.dumps(many).encode())
