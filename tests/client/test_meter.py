"""What is shown of a job as it goes on, for every kind of job."""

import io

import pytest
from rich.console import Console

from spnode_client import meter
from spnode_client.meter import Meter
from spnode_client.records import Event


def record(**progress):
    return {"id": "job_1", "state": "running", "progress": progress}


def shown(records, is_terminal):
    console = Console(file=io.StringIO(), force_terminal=is_terminal, width=120)
    with Meter(console) as seen:
        for each in records:
            seen.show(each)
        bar = seen._bar and seen._bar.tasks[0]
    return console.file.getvalue(), bar


OPTIMISE = {"stage": "optimise", "iterations": 900, "loss": 0.5, "fraction": 0.25}
TRAINING = [
    record(**OPTIMISE, iteration=100, seconds=10.0, remaining_s=40.0),
    record(**OPTIMISE, iteration=300, seconds=14.0, remaining_s=7200.0),
]
ROWS = record(
    stage="rollout", rows=512, rows_total=1024, rows_per_second=100.0,
    remaining_s=5.1, fraction=0.5, seconds=5.1,
)  # fmt: skip
SWEEP = record(
    stage="candidates", candidates=8, succeeded=3, failed=1, cancelled=0, fraction=0.5
)
WAITING_SWEEP = {**SWEEP, "state": "queued"}
AGAIN = {**ROWS, "state": "queued"}
COMPARISON = record(stage="evaluate", message="comparing 2 versions")


@pytest.mark.parametrize(
    ("records", "words", "part"),
    [
        (TRAINING, "optimise  300 of 900, 50/s, loss 5.00e-01, 2.0 h left", 0.25),
        ([ROWS], "rollout  512 of 1024 rows, 100 rows/s, 5 s left", 0.5),
        ([SWEEP], "candidates  3 of 8 trained, 1 not", 0.5),
        ([WAITING_SWEEP], "candidates  3 of 8 trained, 1 not", 0.5),
        ([AGAIN], "queued", 0),
        ([COMPARISON], "evaluate  comparing 2 versions", 0),
        ([{"state": "queued", "progress": None}], "queued", 0),
    ],
)
def test_every_kind_of_job_says_how_far_it_is(monkeypatch, records, words, part):
    monkeypatch.setattr(meter, "PLAIN_EVERY_S", -1.0)
    lines, _ = shown(records, False)
    assert lines.splitlines()[-1] == words
    text, bar = shown(records, True)
    stage, _, note = words.partition("  ")
    assert (bar.description, bar.fields["note"]) == (stage, note)
    assert (bar.completed, bar.total) == (part, 1 if part else None)
    assert note in text


def test_a_bar_goes_to_its_end_and_never_back():
    ended = {"state": "succeeded", "progress": None}
    _, bar = shown([ROWS, record(stage="evaluate")], True)
    assert bar.completed == 0.5
    _, bar = shown([ROWS, ended], True)
    assert bar.completed == 1


def test_elsewhere_than_on_a_terminal_a_line_comes_now_and_then():
    lines, _ = shown([ROWS] * 5 + [SWEEP], False)
    assert [each.split()[0] for each in lines.splitlines()] == ["rollout", "candidates"]


def told(console, events):
    with Meter(console) as seen:
        for kind, data in events:
            seen.tell(Event("1", kind, data))
    return console.file.getvalue().splitlines()


def test_elsewhere_than_on_a_terminal_nothing_is_said_twice(monkeypatch):
    monkeypatch.setattr(meter, "PLAIN_EVERY_S", -1.0)
    compiling = {"stage": "compile", "message": "compiling"}
    fitting = {"stage": "infer", "message": "least squares", "seconds": 1.0}
    counted = {"stage": "optimise", "iteration": 0, "iterations": 9}
    events = [
        ("status", {"data": {"state": "running"}}),
        ("log", {"message": "compiling", "data": compiling}),
        ("progress", {"data": compiling}),
        ("progress", {"data": fitting}),
        ("progress", {"data": {**fitting, "seconds": 9.0}}),
        ("log", {"message": "least squares", "data": {"stage": "infer"}}),
        ("log", {"message": "optimise 0 of 9", "data": {"stage": "optimise"}}),
        ("progress", {"data": counted}),
        ("progress", {"data": {**counted, "stage": "polish"}}),
        ("progress", {"data": {**counted, "iteration": 5}}),
        # What is said again later is news.
        ("log", {"message": "compiling", "data": compiling}),
        ("status", {"data": {"state": "succeeded"}}),
        ("status", {"data": {"state": "succeeded"}}),
    ]
    assert told(Console(file=io.StringIO(), force_terminal=False), events) == [
        "running",
        "  compiling",
        "infer  least squares",
        "  optimise 0 of 9",
        "polish  0 of 9",
        "optimise  5 of 9",
        "  compiling",
        "succeeded",
    ]
