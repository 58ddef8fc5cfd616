"""Event streams outlive the gateway that began them."""

import asyncio
import json

import pytest

from spnode_client import AsyncClient, Client
from spnode_client.aio_jobs import AsyncJob
from spnode_client.errors import Forbidden, Unreachable
from tests.client.conftest import Answer

RUNNING = {"id": "job_1", "kind": "training", "state": "running"}
DONE = {**RUNNING, "state": "succeeded"}


def events(*given) -> Answer:
    """An answer that ends after some events: an id, and a state or a word."""
    text = ""
    for id, word in given:
        is_state = word in ("queued", "running", "succeeded", "failed")
        kind = "status" if is_state else "log"
        data = {"id": id, "message": word, "data": {"state": word} if is_state else {}}
        text += f"id: {id}\nevent: {kind}\ndata: {json.dumps(data)}\n\n"
    return Answer(200, text.encode(), {"content-type": "text/event-stream"})


def record(fields) -> Answer:
    return Answer(200, json.dumps(fields).encode())


def cut(answer, count) -> Answer:
    """The same without its last bytes, in a connection that breaks there."""
    answer.break_after = len(answer.body) - count
    return answer


PROBLEM = json.dumps({"detail": "it stops"}).encode()
STORIES = {
    "whole": [events((1, "running"), (2, "succeeded"))],
    "ended early, resumed": [
        events((1, "running")),
        record(RUNNING),
        events((2, "succeeded")),
    ],
    "not there for a moment": [
        events((1, "running")),
        record(RUNNING),
        Answer(503, PROBLEM),
        Answer(break_after=-1),
        events((2, "succeeded")),
    ],
    "ended meanwhile": [
        events((1, "running"), (2, "a word")),
        record(DONE),
        events(),
        record(DONE),
    ],
    "cut off within an event": [
        cut(events((1, "running"), (2, "a word")), 8),
        events((2, "a word"), (3, "succeeded")),
    ],
    "cut off behind an earlier end": [
        cut(events((1, "failed"), (2, "queued")), 30),
        events((2, "queued"), (3, "succeeded")),
    ],
    "a job that was queued again": [
        events((1, "failed"), (2, "queued")),
        record(RUNNING),
        events((3, "succeeded")),
    ],
}


def blocking(url, retries=2, patience_s=60.0) -> list[str]:
    with Client(url, retries=retries) as client:
        client.patience_s = patience_s
        return [each.id for each in client.jobs.events("job_1")]


def awaited(url, retries=2, patience_s=60.0) -> list[str]:
    async def collect():
        async with AsyncClient(url, retries=retries) as client:
            client.patience_s = patience_s
            job = AsyncJob(client, RUNNING)
            return [each.id async for each in job.events()]

    return asyncio.run(collect())


@pytest.mark.parametrize("read", [blocking, awaited])
@pytest.mark.parametrize("story", STORIES)
def test_every_event_comes_once_to_the_end_of_the_job(server, read, story) -> None:
    server.answers = list(STORIES[story])
    found = read(server.url)
    assert found == [str(number + 1) for number in range(len(found))]
    assert len(found) >= 2
    assert server.answers == []
    resumed = [
        each.headers.get("last-event-id")
        for each in server.asked
        if each.path.endswith("/events")
    ]
    assert resumed[0] is None
    assert all(resumed[1:])


@pytest.mark.parametrize("read", [blocking, awaited])
def test_a_stream_that_does_not_come_back_is_given_up(server, read) -> None:
    server.answers = [Answer(503, PROBLEM) for _ in range(3)]
    with pytest.raises(Unreachable, match="it stops"):
        read(server.url, patience_s=0.0)
    assert server.answers == []


@pytest.mark.parametrize("read", [blocking, awaited])
def test_a_stream_outlasts_a_gateway_that_starts_anew(server, read) -> None:
    # Neither the stream nor the question whether the job has ended is answered.
    away = [Answer(503, PROBLEM), Answer(break_after=-1)]
    begun = [events((1, "running")), Answer(break_after=-1)]
    server.answers = [*begun, *away, events((2, "succeeded"))]
    assert read(server.url, retries=0) == ["1", "2"]
    assert server.answers == []


@pytest.mark.parametrize("read", [blocking, awaited])
def test_a_refusal_is_final(server, read) -> None:
    server.answers = [Answer(403, PROBLEM)]
    with pytest.raises(Forbidden):
        read(server.url)
