"""How long a client waits: deadlines, invitations to come later, forked processes."""

import asyncio
import os
import time

import numpy as np
import pytest

from spnode_client import (
    AsyncClient,
    Client,
    InvalidRequest,
    NotFound,
    Overloaded,
    ServiceFault,
    Unreachable,
)
from spnode_client.arrays import pack
from tests.client.conftest import Answer

SUCCEEDED = b'{"id": "job_1", "state": "succeeded", "kind": "other", "result": {}}'
RUNNING = b'{"id": "job_1", "state": "running", "kind": "training"}'
ROLLOUT = pack(
    {
        "x": np.zeros((1, 1)),
        "times": np.ones(1),
        "model": "m",
        "version": 1,
        "digest": "d",
    }
)
ANSWER = Answer(200, ROLLOUT, {"content-type": "application/x-npz"})


@pytest.fixture
def client(server):
    with Client(server.url, "secret", retries=3) as made:
        yield made


def test_the_service_computes_as_long_as_the_client_waits(server):
    server.answers += [ANSWER, ANSWER, Answer(200, RUNNING)]
    with Client(server.url, timeout_s=280) as client:
        client.rollout("m", [1.0], [1.0])
        client.transport.http.headers["request-timeout"] = "7"
        client.rollout("m", [1.0], [1.0])
        del client.transport.http.headers["request-timeout"]
        client.jobs.get("job_1")
    first, second, third = (asked.headers for asked in server.asked)
    assert first["request-timeout"] == "280"
    assert second["request-timeout"] == "7"
    assert "request-timeout" not in third


def test_what_took_too_long_twice_is_not_asked_again(server, client):
    late = b'{"code": "deadline_passed", "detail": "the deadline passed"}'
    server.answers += [Answer(504, late)] * 2
    with pytest.raises(ServiceFault, match="the deadline passed"):
        client.rollout("m", [1.0], [1.0])
    assert len(server.asked) == 2
    # A proxy's own says nothing of the deadline.
    server.answers += [Answer(504, b"<html>")] * 2 + [ANSWER]
    assert client.rollout("m", [1.0], [1.0]).shape == (1, 1)
    assert len(server.asked) == 5


@pytest.mark.parametrize("told", ["3600", "inf", "1e400"])
def test_who_is_to_come_back_in_an_hour_is_told_at_once(server, client, told):
    server.answers += [Answer(429, b"{}", {"retry-after": told})]
    with pytest.raises(Overloaded) as refused:
        client.rollout("m", [1.0], [1.0])
    assert (refused.value.retry_after or 0) >= 3600
    assert len(server.asked) == 1


def test_waiting_for_a_job_ends_in_time_though_nothing_is_heard_of_it(server):
    with Client(server.url, retries=50) as client:
        server.answers += [Answer(200, RUNNING)]
        job = client.jobs.get("job_1")
        server.answers += [Answer(503)] * 3
        server.answers += [Answer(503, headers={"retry-after": "100"})]
        start = time.monotonic()
        with pytest.raises(TimeoutError, match="job_1 in 1 s"):
            job.wait(timeout_s=1.0)
        assert time.monotonic() - start < 20
    assert len(server.asked) <= 5


def test_waiting_for_a_job_outlasts_a_gateway_that_starts_anew(server):
    with Client(server.url, retries=0) as client:
        server.answers += [Answer(200, RUNNING)]
        job = client.jobs.get("job_1")
        server.answers += [Answer(503), Answer(500), Answer(200, SUCCEEDED)]
        assert job.wait(timeout_s=60.0) == {}
    assert len(server.asked) == 4


def test_waiting_without_an_end_outlasts_it_too(server):
    away = [Answer(503), Answer(break_after=-1), Answer(502)]
    server.answers += [Answer(200, RUNNING), *away, Answer(200, SUCCEEDED)]
    with Client(server.url, retries=0) as client:
        job = client.jobs.get("job_1")
        assert job.wait() == {}
        assert server.answers == []
        # What no restart explains ends it at once.
        server.answers += [Answer(404)]
        with pytest.raises(NotFound):
            job.wait()
        client.patience_s = 0.0
        server.answers += [Answer(break_after=-1)]
        with pytest.raises(Unreachable):
            job.wait()
    assert server.answers == []


def test_the_async_client_outlasts_it_too(server):
    server.answers += [Answer(200, RUNNING), Answer(503), Answer(200, SUCCEEDED)]

    async def wait():
        async with AsyncClient(server.url, retries=0) as client:
            return await client.jobs.wait("job_1")

    assert asyncio.run(wait()) == {}


def test_what_leads_elsewhere_is_no_success(server, client, tmp_path):
    elsewhere = Answer(302, b"<html>", {"location": "https://login.example/"})
    server.answers += [elsewhere, elsewhere]
    with pytest.raises(InvalidRequest, match=r"302 leads to https://login\.example/"):
        client.datasets.download("ds_1", tmp_path / "d.npz")
    assert not list(tmp_path.iterdir())
    with pytest.raises(InvalidRequest, match="302"):
        client.jobs.get("job_1")


def test_a_forked_process_has_connections_of_its_own(server, client, monkeypatch):
    server.answers += [Answer(200, RUNNING)] * 3
    client.jobs.get("job_1")
    parents, parent = client.transport.http, os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    client.jobs.get("job_1")
    own = client.transport.http
    assert own is not parents
    assert client.transport.http is own
    assert own.headers["authorization"] == "Bearer secret"
    # Closed here they would be closed, with TLS, for the parent too.
    assert not parents.is_closed
    for each in (parents, own):
        each.close()
