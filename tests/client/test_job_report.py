"""A job as a person reads it, and as a script does."""

import asyncio
import json

import pytest

from spnode_client import AsyncClient, Client
from spnode_client.commands.job_report import attempts_of, print_job
from spnode_client.errors import Unreachable
from spnode_client.moments import lasting, moment, span
from spnode_client.records import Event
from spnode_client.terminal import print_table
from tests.client.conftest import Answer
from tests.client.test_command_line import run

JOB = {
    **{"id": "job_1", "kind": "training", "state": "failed", "project": "default"},
    **{"queue": "training", "priority": 0, "attempt": 2, "max_attempts": 2},
    "request": {"model": "m", "dataset": "ds_1", "seed": 0, "surrogate": {"a": 1}},
    "progress": {"stage": "optimise", "iteration": 10, "iterations": 40, "loss": 0.5},
    "created_at": "2026-01-02T03:04:00Z",
    "started_at": "2026-01-02T03:04:05.25Z",
    "finished_at": "2026-01-02T03:24:00Z",
    "error": {"code": "attempts_exhausted", "detail": "it died", "field": "seed"},
}


def status(second, state, **data):
    at = f"2026-01-02T03:04:{second:02}Z"
    told = {"created_at": at, "message": state, "data": {"state": state, **data}}
    return Event(str(second), "status", told)


LOG = [
    status(0, "queued"),
    status(5, "running", attempt=1, worker="a"),
    Event("6", "log", {"message": "preset auto", "data": {"choices": []}}),
    Event("7", "status", {"message": "cancel requested", "data": None}),
    status(8, "queued", attempt=2, reason="worker a stopped renewing its lease"),
    status(9, "running", attempt=2, worker="b"),
    status(20, "failed", attempt=2, error={"code": "x", "detail": "it [/died]"}),
    status(30, "queued", retried_after="failed"),
    status(31, "running", attempt=1, worker="c"),
]


def test_a_log_tells_of_each_attempt():
    first, second, third = attempts_of(LOG)
    assert (first.number, first.worker, first.outcome) == (1, "a", "queued")
    assert first.reason == "worker a stopped renewing its lease"
    assert (second.ended_at, second.outcome) == ("2026-01-02T03:04:20Z", "failed")
    assert second.reason == "it [/died]"
    assert (third.worker, third.ended_at, third.outcome) == ("c", "", "")
    ended = attempts_of([*LOG, status(40, "succeeded", result={})])
    assert ended[-1].reason == "", "an end that is good needs none"


def test_a_job_is_shown_with_its_attempts_and_its_error(capsys):
    print_job(JOB, LOG)
    lines = capsys.readouterr().out.splitlines()
    facts = {" ".join(each.split()) for each in lines}
    assert {"job job_1", "state failed", "model m", "dataset ds_1"} <= facts
    assert "started 2026-01-02 03:04:05Z" in facts, "of a retry's wait nothing is known"
    assert "finished 2026-01-02 03:24:00Z, after 19.9 min" in facts
    assert "progress optimise, 25 %, 10 of 40, loss 0.5" in facts
    assert "attempt 2" in facts, "their limit rises, and is none of attempts alone"
    assert "1 a 2026-01-02 03:04:05Z 2026-01-02 03:04:08Z 3 s queued" in facts
    assert "1 c 2026-01-02 03:04:31Z running" in facts
    assert "attempt 2: it [/died]" in facts
    assert lines[-1] == "attempts_exhausted at seed: it died"
    print_job(JOB, LOG[:7])
    lines = capsys.readouterr().out.splitlines()
    assert "started 2026-01-02 03:04:05Z, after 5.25 s" in map(_spaced, lines)


def test_an_error_names_its_field_once(capsys):
    found = "found 'y99'; expected one of y1, y2"
    error = {"code": "invalid_input", "field": "a.b", "detail": f"a.b: {found}"}
    print_job({"id": "job_1", "error": error}, [])
    assert capsys.readouterr().out.splitlines()[-1] == f"invalid_input at a.b: {found}"


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"state": "running", "cancel_requested": True}, "running, cancelling was"),
        ({"state": "cancelled", "cancel_requested": True}, "cancelled\n"),
    ],
)
def test_cancelling_that_is_under_way_is_said_to_be(record, said, server):
    server.answers += [Answer(202, json.dumps({**JOB, **record}).encode())]
    done = run("jobs", "cancel", "job_1", SPNODE_URL=server.url)
    assert done.stdout.startswith(f"job_1 {said}"), done.stderr


def _spaced(line):
    return " ".join(line.split())


def test_a_result_is_shown_by_its_version(capsys):
    made = {"model": "m", "version": 3, "scaled_mse": 1.25e-3, "shape": [1] * 99}
    print_job({**JOB, "state": "succeeded", "error": None, "result": made}, [])
    lines = [each.split() for each in capsys.readouterr().out.splitlines()]
    assert ["version", "m/3"] in lines
    assert ["scaled", "mse", "0.00125"] in lines
    assert ["shape", "99", "entries,", "in", "--json"] in lines


@pytest.mark.parametrize("record", [{}, {"progress": None, "request": None}])
def test_fields_that_are_absent_are_left_out(record, capsys):
    print_job({"id": "job_1", **record}, [])
    assert capsys.readouterr().out.split() == ["job", "job_1"]


def stream(events):
    parts = []
    for each in events:
        parts.append(f"id: {each.id}\nevent: {each.kind}\n")
        parts.append(f"data: {json.dumps(each.data)}\n\n")
    return Answer(200, "".join(parts).encode(), {"content-type": "text/event-stream"})


def test_a_job_is_read_from_its_record_and_its_log(server):
    record = json.dumps(JOB).encode()
    server.answers += [Answer(200, record), stream(LOG[:7]), Answer(200, record)]
    done = run("jobs", "show", "job_1", SPNODE_URL=server.url)
    assert "attempt 1: worker a stopped renewing its lease" in done.stdout, done.stderr
    as_json = run("jobs", "show", "job_1", "--json", SPNODE_URL=server.url)
    assert json.loads(as_json.stdout) == JOB
    paths = [each.path for each in server.asked]
    assert paths == ["/v1/jobs/job_1", "/v1/jobs/job_1/events", "/v1/jobs/job_1"]


def blocking(url):
    with Client(url) as client:
        return client.jobs.get("job_1").past_events()


def awaited(url):
    async def collect():
        async with AsyncClient(url) as client:
            return await (await client.jobs.get("job_1")).past_events()

    return asyncio.run(collect())


@pytest.mark.parametrize("past_events", [blocking, awaited])
def test_the_log_of_a_job_that_goes_on_is_read_as_far_as_it_is(server, past_events):
    far = Event("", "progress", {"id": None, "data": None})
    held = stream([*LOG[:3], far, LOG[3]])
    server.answers += [Answer(200, json.dumps({**JOB, "state": "running"}).encode())]
    server.answers.append(held)
    assert len(past_events(server.url)) == 3
    broken = stream(LOG[:3])
    broken.break_after = len(broken.body) - 1
    server.answers += [Answer(200, json.dumps({**JOB, "state": "running"}).encode())]
    server.answers += [broken, held]
    found = past_events(server.url)
    assert [each.id for each in found] == [each.id for each in LOG[:3]]


def test_times_are_said_to_the_second_and_lengths_in_the_unit_that_fits():
    assert moment("2026-01-02T03:04:05.678Z") == "2026-01-02 03:04:05Z"
    assert moment("2026-01-02T03:04:05+01:00") == "2026-01-02 02:04:05Z"
    assert [moment(None), moment("soon")] == ["", "soon"]
    assert span("2026-01-02T03:00:00Z", "2026-01-02T03:00:01.5Z") == "1.5 s"
    assert span(None, "2026-01-02T03:00:00Z") == ""
    assert [lasting(650.46), lasting(7200), lasting(None)] == ["10.8 min", "2.0 h", ""]


@pytest.mark.parametrize("past_events", [blocking, awaited])
def test_a_log_that_does_not_come_is_no_empty_log(server, past_events):
    server.answers += [Answer(200, json.dumps({**JOB, "state": "running"}).encode())]
    server.answers += [Answer(break_after=-1)] * 2
    with pytest.raises(Unreachable, match="job 'job_1' gave no events"):
        past_events(server.url)


def test_texts_of_others_move_no_cursor(capsys):
    lies = "a\x1b[2J\x9b1A\rb\u202etxt"
    print_job({"id": "job_1", "state": lies, "request": {"model": lies}}, [])
    print_table(("name",), [(lies,)])
    said = capsys.readouterr().out
    assert not set(said) & {"\x1b", "\x9b", "\r", "\u202e"}
    assert said.count("b\N{REPLACEMENT CHARACTER}txt") == 3
