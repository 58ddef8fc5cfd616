"""Waiting for a job shows where it is, on a terminal and nowhere else."""

import io
import json
import sys

import pytest

from spnode_client import Client
from tests.client.conftest import Answer

RUNNING = {
    "id": "job_1",
    "state": "running",
    "kind": "unheard_of",
    "progress": {
        "message": "optimise 5 of 9",
        "validation_loss": 1.25e-4,
        "remaining_s": 7.4,
    },
}
DONE = {**RUNNING, "state": "succeeded", "result": {"fine": True}}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()])
def test_waiting_shows_progress_on_a_terminal_only(server, monkeypatch, stream):
    server.answers += [
        Answer(200, json.dumps(record).encode()) for record in (RUNNING, RUNNING, DONE)
    ]
    monkeypatch.setattr(sys, "stderr", stream)
    with Client(server.url, "secret") as client:
        client.jobs.wait("job_1")
    shown = stream.getvalue()
    if not stream.isatty():
        assert shown == ""
        return
    last_but_one, last = shown.split("\r\x1b[K")[-2:]
    assert last_but_one.startswith("job_1 running · optimise 5 of 9 · validation loss")
    assert "1.25e-04 · 7 s left" in last_but_one
    assert last == "job_1 succeeded\n"
