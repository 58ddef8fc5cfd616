"""What commands that queue jobs say of their schedule."""

import json

import pytest

from spnode_client.commands.schedule import parse_duration, schedule_of
from spnode_client.terminal import UsageError
from tests.client.conftest import Answer
from tests.client.test_command_line import run

DATASET = f"ds_{'0' * 26}"


def test_nothing_said_is_nothing_sent() -> None:
    assert schedule_of(None, None, False) is None


def test_options_become_the_fields_of_the_request() -> None:
    expected = {"priority": -2, "deadline_seconds": 5400.0, "device": "gpu"}
    assert schedule_of(-2, "1.5h", True) == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90.0), ("90s", 90.0), ("30m", 1800.0), ("2d", 172_800.0)],
)
def test_a_duration_has_a_unit_or_is_in_seconds(text, seconds) -> None:
    assert parse_duration(text, "--deadline") == seconds


@pytest.mark.parametrize("text", ["", "h", "-1m", "0", "inf", "nan", "soon"])
def test_a_duration_that_is_none_is_a_usage_error(text) -> None:
    with pytest.raises(UsageError, match="--deadline"):
        parse_duration(text, "--deadline")


@pytest.mark.parametrize(
    ("command", "options", "expected"),
    [
        ("train", ["--priority", "-1"], {"priority": -1}),
        ("train", ["--set", "schedule.priority=-1"], {"priority": -1}),
        ("sweep", ["--deadline", "2m"], {"deadline_seconds": 120.0}),
        ("sweep", ["--set", "schedule.priority=-1"], {"priority": -1}),
        ("train", [], None),
        ("sweep", [], None),
    ],
)
def test_a_command_sends_its_schedule(server, command, options, expected) -> None:
    job = {"id": "job_0", "kind": "training", "state": "queued"}
    server.answers.append(Answer(202, json.dumps(job).encode()))
    vary = ["--vary", "seed=0,1"] if command == "sweep" else []
    arguments = [command, DATASET, "--model", "m", "--detach", *vary, *options]
    ran = run(*arguments, SPNODE_URL=server.url)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(server.asked[-1].body).get("schedule") == expected
