"""What is watched on a terminal: drawn anew, until it is over or interrupted."""

import io
import json
import os
import pty
import subprocess
import sys
import threading
import time

import pytest
from rich.console import Console
from rich.text import Text

from spnode_client import terminal
from spnode_client.errors import Unreachable
from tests.client.conftest import Answer, interrupt
from tests.client.test_command_line import run

RUNNING = {
    **{"id": "job_1", "kind": "training", "state": "running", "attempt": 1},
    **{"request": {"model": "m"}, "cancel_requested": True, "max_attempts": 4},
    "progress": {"stage": "optimise", "iteration": 3, "iterations": 9},
}
DONE = {**RUNNING, "state": "succeeded", "result": {"model": "m", "version": 7}}


def answer(body):
    return Answer(200, json.dumps(body).encode())


# A gateway that starts anew, for the first try of a request and all others.
AWAY = [Answer(503, b'{"detail": "the gateway starts"}')] * 5


def stream(*states):
    """A job's log as its events, which ends there."""
    told = [
        f"id: {at}\nevent: status\ndata: {json.dumps({'data': {'state': state}})}\n\n"
        for at, state in enumerate(states, start=1)
    ]
    return Answer(200, "".join(told).encode(), {"content-type": "text/event-stream"})


class Watched:
    """A command on a terminal of its own."""

    def __init__(self, server, *arguments):
        self.outer, inner = pty.openpty()
        self.said = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "spnode_client", *arguments],
            env={**os.environ, "SPNODE_URL": server.url, "TERM": "xterm"},
            stdin=inner,
            stdout=inner,
            stderr=inner,
        )
        os.close(inner)
        self.reading = threading.Thread(target=self._read, daemon=True)
        self.reading.start()

    def _read(self):
        # At its end a terminal has an error for whoever reads it.
        try:
            while part := os.read(self.outer, 4096):
                self.said += part.decode(errors="replace")
        except OSError:
            pass

    def until(self, words, within_s=30):
        end = time.monotonic() + within_s
        while words not in self.said:
            assert time.monotonic() < end, self.said
            time.sleep(0.05)

    def close(self):
        self.process.kill()
        self.process.wait()
        self.reading.join(10)
        os.close(self.outer)


@pytest.fixture
def watched(server):
    begun = []

    def begin(*arguments):
        begun.append(Watched(server, *arguments))
        return begun[-1]

    yield begin
    for each in begun:
        each.close()


def test_a_job_is_watched_until_it_has_ended(server, watched):
    server.answers += [
        *(answer(RUNNING), answer(RUNNING), stream("queued", "running")),
        *(answer(DONE), stream("queued", "running", "succeeded")),
    ]
    seen = watched("jobs", "show", "job_1", "--watch")
    seen.until("optimise, 33 %, 3 of 9")
    assert "running, cancelling was asked for" in seen.said
    seen.until("m/7")
    assert seen.process.wait(30) == 0
    assert seen.said.count("cancelling was asked for") == 1


def test_the_last_drawing_stays_while_a_gateway_starts_anew(server, watched):
    server.answers += [
        *(answer(RUNNING), answer(RUNNING), stream("queued", "running")),
        # It is away for the record, then for the log of a job that has ended.
        *(*AWAY, answer(DONE), *AWAY),
        *(answer(DONE), stream("queued", "running", "succeeded")),
    ]
    seen = watched("jobs", "show", "job_1", "--watch")
    seen.until("the gateway starts; trying again")
    seen.until("m/7")
    assert seen.process.wait(60) == 0
    assert server.answers == []
    # Below what was drawn before, which is drawn with it.
    assert seen.said.index("optimise") < seen.said.index("the gateway starts")
    assert seen.said.count("optimise, 33 %") >= 2


def test_an_error_that_does_not_pass_ends_the_watching(server, watched):
    server.answers += [
        *(answer(RUNNING), answer(RUNNING), stream("queued", "running")),
        Answer(404, b'{"detail": "there is no such job"}'),
    ]
    seen = watched("jobs", "show", "job_1", "--watch")
    seen.until("there is no such job")
    assert seen.process.wait(30) == 1


class Clock:
    """Time that passes while somebody sleeps."""

    now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def test_a_gateway_is_waited_for_each_time_for_a_minute(monkeypatch):
    clock, console = Clock(), Console(file=io.StringIO(), force_terminal=True)
    monkeypatch.setattr(terminal, "out", console)
    monkeypatch.setattr(terminal, "time", clock)

    def draw():
        if 10 <= clock.now < 60 or clock.now >= 100:
            raise Unreachable("no answer")
        return Text(f"drawn after {clock.now:g} s")

    with pytest.raises(Unreachable, match="no answer"):
        terminal.watch(draw, every_s=2.0)
    assert clock.now == 160
    said = console.file.getvalue()
    assert "no answer; trying again" in said
    assert "drawn after 60 s" in said


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_job_that_ended_badly_is_drawn_and_fails_the_command(server, watched, state):
    error = {"code": "diverged", "detail": "every loss was infinite"}
    ended = {**RUNNING, "state": state, "error": error}
    server.answers += [
        *(answer(RUNNING), answer(ended)),
        stream("queued", "running", state),
    ]
    seen = watched("jobs", "show", "job_1", "--watch")
    seen.until("diverged: every loss was infinite")
    assert seen.process.wait(30) == 1


@pytest.mark.usefixtures("heeded")
def test_versions_are_watched_until_ctrl_c(server, watched):
    model = {"name": "m", "aliases": {"champion": 2}, "versions": []}
    version = {"size_bytes": 1, "created_at": "2026-01-02T03:04:05Z"}
    # On a slow machine it looks again before the signal arrives.
    for numbers in ((1,), *[(2, 1)] * 20):
        found = [{**version, "number": each} for each in numbers]
        server.answers += [answer(model), answer({"data": found, "next": "1"})]
    seen = watched("models", "versions", "m", "--watch")
    seen.until("champion")
    interrupt(seen.process)
    assert seen.process.returncode == 0, seen.said
    # What a list says of its next page would stand there once for each time.
    assert "there are more" not in seen.said


@pytest.mark.parametrize(
    ("command", "option"),
    [(("jobs", "show", "job_1"), "json"), (("models", "versions", "m"), "all")],
)
def test_watching_excludes_what_makes_no_sense_with_it(command, option):
    done = run(*command, "--watch", f"--{option}", SPNODE_KEY="spn_x")
    assert (done.returncode, f"found --{option} too" in done.stderr) == (2, True)
