"""Retries, idempotency and errors, against a server that misbehaves on purpose."""

import asyncio
import email.utils
import json
import time

import pytest

from spnode_client import (
    AsyncClient,
    Client,
    InvalidRequest,
    NotFound,
    Overloaded,
    ProblemError,
    Unreachable,
)
from spnode_client.calls import Reply, retry_after
from spnode_client.operations import models
from tests.client.conftest import Answer

JOB = json.dumps({"id": "job_1", "state": "queued", "kind": "training"}).encode()
REQUEST = {"kind": "training", "dataset": "ds_1", "model": "mine"}


@pytest.fixture
def client(server):
    with Client(server.url, "secret", retries=2) as made:
        yield made


def test_a_retried_submission_keeps_its_idempotency_key(server, client):
    server.answers += [Answer(503), Answer(break_after=-1), Answer(202, JOB)]
    assert client.jobs.submit(REQUEST).id == "job_1"
    keys = {asked.headers["idempotency-key"] for asked in server.asked}
    assert len(server.asked) == 3
    assert len(keys) == 1


def test_two_submissions_have_different_idempotency_keys(server, client):
    server.answers += [Answer(202, JOB), Answer(202, JOB)]
    client.jobs.submit(REQUEST)
    client.jobs.submit(REQUEST)
    first, second = server.asked
    assert first.headers["idempotency-key"] != second.headers["idempotency-key"]


@pytest.mark.parametrize("answer", [Answer(break_after=-1), Answer(503), Answer(502)])
def test_a_key_is_asked_for_once_since_its_secret_is_told_once(server, client, answer):
    server.answers += [Answer(429, headers={"retry-after": "0"}), answer]
    with pytest.raises((Unreachable, ProblemError), match="may have been made"):
        client.keys.rotate("01kc", keep_seconds=0)
    assert len(server.asked) == 2, "refused, and tried"
    server.answers += [Answer(409, b'{"detail": "revoked"}')]
    with pytest.raises(ProblemError, match=r"^revoked$"):
        client.keys.create("me", ["read"])


def test_a_retry_comes_no_sooner_than_the_service_asks(server, client):
    server.answers += [Answer(429, headers={"retry-after": "1"}), Answer(202, JOB)]
    start = time.monotonic()
    client.jobs.submit(REQUEST)
    assert time.monotonic() - start >= 1.0


def test_retry_after_may_be_a_date():
    soon = email.utils.formatdate(time.time() + 30, usegmt=True)
    seconds = retry_after({"retry-after": soon})
    assert seconds is not None
    # The header has whole seconds.
    assert 28 <= seconds <= 30


def test_a_service_that_stays_overloaded_is_an_error_with_its_own_words(server, client):
    problem = json.dumps({"detail": "too much waits", "code": "overloaded"}).encode()
    server.answers += [Answer(503, problem, {"retry-after": "0"})] * 3
    with pytest.raises(Overloaded, match="too much waits") as caught:
        client.jobs.submit(REQUEST)
    assert caught.value.retry_after == 0.0
    assert caught.value.code == "overloaded"
    assert len(server.asked) == 3


def test_a_service_that_never_answers_is_unreachable(server, client):
    server.answers += [Answer(break_after=-1)] * 3
    with pytest.raises(Unreachable, match="no answer from http://127"):
        client.jobs.get("job_1")


def test_a_refusal_is_not_retried_and_names_the_field(server, client):
    problem = {
        "detail": "the request is invalid",
        "code": "invalid",
        "errors": [{"pointer": "/x0", "detail": "found 2 numbers; expected 3"}],
    }
    server.answers.append(Answer(422, json.dumps(problem).encode()))
    with pytest.raises(InvalidRequest, match=r"/x0: found 2 numbers") as caught:
        client.rollout("mine", [1.0, 2.0], [1.0])
    assert caught.value.fields == [("/x0", "found 2 numbers; expected 3")]
    assert len(server.asked) == 1


def test_a_refusal_without_a_problem_document_is_an_error_all_the_same(server, client):
    server.answers.append(Answer(404, b"<html>nothing here</html>"))
    with pytest.raises(NotFound, match="404"):
        client.jobs.get("job_1")


def test_the_key_is_sent_as_bearer(server, client):
    server.answers.append(Answer(200, JOB))
    client.jobs.get("job_1")
    assert server.asked[0].headers["authorization"] == "Bearer secret"


def test_the_async_client_retries_by_the_same_rules(server):
    server.answers += [Answer(503), Answer(break_after=-1), Answer(202, JOB)]

    async def submit():
        async with AsyncClient(server.url, retries=2) as client:
            return await client.jobs.submit(REQUEST)

    assert asyncio.run(submit()).id == "job_1"
    assert len({asked.headers["idempotency-key"] for asked in server.asked}) == 1


def test_an_upload_streams_the_whole_file_again_after_a_lost_connection(
    server, client, tmp_path
):
    content = bytes(range(256)) * 10_000
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    record = json.dumps({"id": "ds_1"}).encode()
    server.answers += [Answer(break_after=-1), Answer(201, record)]
    assert client.datasets.upload(path).id == "ds_1"
    assert [asked.body == content for asked in server.asked] == [True, True]


def test_a_broken_download_leaves_no_file(server, client, tmp_path):
    server.answers += [Answer(200, b"x" * 1000, break_after=10)] * 3
    with pytest.raises(Unreachable):
        client.models.download("mine/1", tmp_path / "mine.spnode")
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_succeeds_at_the_second_try_is_whole(server, client, tmp_path):
    server.answers += [
        Answer(200, b"x" * 1000, break_after=10),
        Answer(200, b"x" * 1000),
    ]
    path = client.models.download("mine/1", tmp_path / "mine.spnode")
    assert path.read_bytes() == b"x" * 1000


def test_an_event_stream_goes_on_after_a_lost_connection(server, client):
    first = b'id: 1\nevent: log\ndata: {"message": "one"}\n\n'
    second = (
        b": keep-alive\n\n"
        b'id: 2\nevent: status\ndata: {"data": {"state": "succeeded"}}\n\n'
    )
    server.answers += [
        Answer(200, first + b"id: 2\nev", break_after=len(first)),
        Answer(200, second),
    ]
    events = list(client.jobs.events("job_1"))
    assert [event.id for event in events] == ["1", "2"]
    assert server.asked[1].headers["last-event-id"] == "1"


@pytest.mark.parametrize("listed", [["../artifact", 5, "A", "loss"], "loss", 5, None])
def test_only_proper_names_of_pictures_are_asked_for(listed):
    operation = models.plots("m/1", 0)
    assert next(operation).path == "/v1/models/m/versions/1/card"
    card = json.dumps({"plots": listed}).encode()
    asked = []
    try:
        call = operation.send(Reply(200, {}, card))
        while True:
            asked.append(call.path)
            call = operation.send(Reply(200, {}, b"png"))
    except StopIteration as end:
        found = end.value
    proper = {"loss": b"png"} if isinstance(listed, list) else {}
    assert found == proper
    assert asked == [f"/v1/models/m/versions/1/plots/{name}" for name in proper]
