"""The command line says that an answer is long in coming, once, and is bounded."""

import socket
import time

import pytest

from spnode_client import waiting
from spnode_client.waiting import WaitingClient
from tests.client.conftest import Answer
from tests.client.test_command_line import run

JOBS = Answer(200, b'{"data": [], "next": null}')


@pytest.fixture
def said(monkeypatch):
    monkeypatch.setattr(waiting, "SILENT_S", 0.2)
    return []


@pytest.fixture
def client(server, said):
    with WaitingClient(server.url, None, timeout_s=60, says=said.append) as client:
        yield client


def test_an_answer_that_is_long_in_coming_is_told_of_once(server, client, said):
    server.answers += [Answer(200, JOBS.body, after_s=0.6), JOBS]
    server.answers += [Answer(200, JOBS.body, after_s=0.6)]
    for expected in (1, 1, 1):
        assert list(client.jobs.list()) == []
        assert said == [server.url] * expected


def test_an_answer_that_comes_is_not_told_of(server, client, said):
    server.answers += [JOBS]
    assert list(client.jobs.list()) == []
    # Asked to wait for the end of a job, the service is silent by request.
    ended = b'{"id": "job_1", "state": "succeeded", "result": {}}'
    record = b'{"id": "job_1", "state": "running"}'
    server.answers += [Answer(200, record), Answer(200, ended, after_s=0.6)]
    client.jobs.get("job_1").wait(timeout_s=20)
    time.sleep(0.5)
    assert said == []


def test_a_file_that_is_on_its_way_is_no_silence(server, client, said, tmp_path):
    content = b"0" * 40
    server.answers += [Answer(200, content, byte_s=0.02)]
    # What comes in small parts is told of at each.
    path = client.datasets.download("ds_1", tmp_path / "file.npz")
    assert (tmp_path / "file.npz").read_bytes() == content, path
    assert said == []


def test_a_service_that_never_answers_is_named_and_given_up(tmp_path):
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        done = run("--url", url, "--timeout", "2", "models", "list")
        took = time.monotonic() - began
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count(f"waiting for an answer from {url}") == 1
    assert "no answer from" in done.stderr
    assert took < 40


@pytest.mark.parametrize("wrong", ["0", "-1", "nan", "inf", "3601"])
def test_a_timeout_that_is_none_is_wrong_usage(wrong):
    done = run(f"--timeout={wrong}", "models", "list")
    assert done.returncode == 2
    assert "--timeout: found" in done.stderr
