"""``bench``: figures that are made up, and the quick version of the real ones."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from benchmarks.peers import environment
from benchmarks.peers.environment import PeerError
from benchmarks.peers.process import Program
from benchmarks.speed import command, deployment, scale
from benchmarks.speed.claim_stores import sqlite_store
from benchmarks.speed.command import Request, bench
from benchmarks.speed.deployment import Running, Server
from benchmarks.speed.figures import Figure, Group, Options, number
from benchmarks.speed.gradient import mean_squared_error, step_of
from benchmarks.speed.load import Load
from benchmarks.speed.scale import _swept
from benchmarks.speed.serving import checked
from benchmarks.speed.turns import Took, compared, in_turns, ratios, repeated, spread
from deploy import measuring
from deploy.bench import _command
from services.database import tables
from spnode_client.cli import make_app
from spnode_client.terminal import UsageError
from spnode_core.rollout import rollout
from tests.core.models import MASS, random_states, small_surrogate


def made_up(values, **bar):
    """A group with one figure of these values."""
    figure = Figure(
        "doubling",
        "halving",
        lambda tell: {"value": spread(values), "ours": "1 ms", "notes": ["Noted."]},
        **bar,
    )
    return Group("made-up", "Made up", "Nothing.", lambda options, stack: [figure])


def run_made_up(monkeypatch, folder, group, **choices):
    monkeypatch.setattr(command, "GROUPS", {group.name: group})
    request = Request([group.name], Options(), folder, "./spnode bench", **choices)
    return bench(request)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Folder of the model, made once, and what a quick run of a group found."""
    folder = tmp_path_factory.mktemp("bench")

    def run(group, **choices):
        options = Options(quick=True, folder=folder, **choices)
        out = folder / "out"
        bench(Request([group], options, out, f"./spnode bench {group} --quick"))
        return json.loads((out / f"{group}.json").read_text()), out

    return run


def test_contestants_take_turns_and_each_round_begins_with_another():
    order = []

    def contestant(name):
        def run():
            order.append(name)
            return Took(1.0, 1.0)

        return run

    found = in_turns({name: contestant(name) for name in "abc"}, 3)
    assert "".join(order) == "abcbcacab"
    assert [len(taken) for taken in found.values()] == [3, 3, 3]


def test_ratios_are_those_of_the_rounds_and_not_of_the_medians():
    # The machine was ten times slower in the last round, for both.
    told = ratios([2.0, 2.0, 40.0], [1.0, 1.0, 10.0])
    assert (told["min"], told["median"], told["max"]) == (2.0, 2.0, 4.0)
    assert spread([3.0]) == dict.fromkeys(("min", "q1", "median", "q3", "max"), 3.0) | {
        "rounds": 1
    }


def test_comparison_is_by_cpu_time_and_shows_both_errors():
    mine, others = [Took(1.0, 0.1)] * 3, [Took(2.0, 0.4)] * 3
    told = compared(mine, others, {"ours": 1e-3, "theirs": 2e-6})
    assert told["value"]["median"] == pytest.approx(4.0)
    assert "1.0e-03" in told["ours"]
    assert "2.0e-06" in told["theirs"]
    assert "2x" in told["notes"][0]


def test_short_calls_are_repeated_until_they_can_be_measured():
    calls = []
    took = repeated(lambda: calls.append(1), least_s=0.01)()
    assert len(calls) > 10
    assert 0 < took.wall_s < 1e-2


@pytest.mark.parametrize(
    ("bar", "passed", "asked"),
    [
        ({"at_least": 2.0}, True, "≥ 2x"),
        ({"at_least": 2.1}, False, "≥ 2.1x"),
        ({"at_most": 2.0}, True, "≤ 2x"),
        ({"at_most": 1.9}, False, "≤ 1.9x"),
        ({}, None, "reported"),
    ],
)
def test_the_median_is_held_against_the_bar(bar, passed, asked, monkeypatch, tmp_path):
    (found,) = run_made_up(monkeypatch, tmp_path, made_up([1.0, 2.0, 9.0], **bar))
    assert (found["passed"], found["asked"]) == (passed, asked)
    assert found["found"] == "**2x** (1.5 to 5.5; 1 to 9)"
    page = (tmp_path / "made-up.md").read_text()
    assert "Noted." in page
    assert "| doubling | halving |" in page
    assert "[Made up](made-up.md)" in (tmp_path / "README.md").read_text()


def test_a_figure_says_where_it_was_measured_and_keeps_what_is_not_measured_anew(
    monkeypatch, tmp_path
):
    run_made_up(monkeypatch, tmp_path, made_up([1.0]))
    run_made_up(monkeypatch, tmp_path, made_up([5.0]), only="something else")
    content = json.loads((tmp_path / "made-up.json").read_text())
    (row,) = content["rows"]
    assert row["numbers"]["value"]["median"] == 1.0
    assert len(row["machine"]["load"]) == 2
    assert row["machine"]["processor"]
    assert "jax" in row["versions"]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(12345.6, "1/s", "12,346 1/s"), (0.4567, "x", "0.457x"), (55.0, "%", "55%")],
)
def test_numbers_have_three_digits_that_count(value, unit, text):
    assert number(value, unit) == text


def test_command_repeats_what_was_typed():
    told = _command("rollout", "batch 1", {"peers": True, "quick": False})
    assert told == "./spnode bench rollout --peers --only 'batch 1'"


def test_unknown_group_is_wrong_usage_and_a_missed_bar_is_exit_code_1(
    monkeypatch, tmp_path
):
    app = make_app()
    app.command()(measuring.bench)
    runner = CliRunner()
    done = runner.invoke(app, ["bench", "nothing"])
    assert isinstance(done.exception, UsageError)
    for bar, code in ((1.0, 0), (3.0, 1)):
        group = made_up([2.0], at_least=bar)
        monkeypatch.setattr(command, "GROUPS", {group.name: group})
        arguments = ["bench", "made-up", "--out", str(tmp_path), "--json"]
        assert runner.invoke(app, arguments).exit_code == code


@pytest.mark.timeout(900)
def test_quick_rollout_gives_every_kind_of_figure(quick):
    content, out = quick("rollout")
    rows = {row["name"]: row["numbers"] for row in content["rows"]}
    assert len(rows) == 6
    for numbers in rows.values():
        assert 0 < numbers["value"]["min"] <= numbers["value"]["max"]
    # A share of what the same cores can do is at most all of it, and a derivative is
    # never cheaper than a fifth of the forward pass.
    assert rows["batch 64, usual mode"]["value"]["median"] < 100
    assert rows["vjp of a final state, batch 64, usual mode"]["value"]["median"] > 0.2
    # Propagators are no part of a rollout: they made it 40 times as long.
    dense = rows["a dense linear part of 64 latent variables, batch 1"]
    assert dense["value"]["median"] < 10
    solver = rows["faster than LSODA by odeint on the reaction itself, batch 1"]
    assert 0 < solver["errors"]["theirs"] < 1e-4 < solver["errors"]["ours"]
    assert "## In detail" in (out / "rollout.md").read_text()


@pytest.mark.timeout(900)
def test_quick_doors_count_the_rows_of_batches(quick):
    content, _ = quick("doors")
    rows = {row["name"]: row["numbers"] for row in content["rows"]}
    assert len(rows) == 2
    for numbers in rows.values():
        assert 1.0 < numbers["value"]["median"] <= 64.0


@pytest.mark.timeout(900)
def test_quick_serving_answers_every_request_and_compares_windows(quick):
    content, out = quick("serving")
    rows = {row["name"]: row["numbers"] for row in content["rows"]}
    assert len(rows) == 3
    alone = rows.pop("one row alone: median latency beyond no-op and model")
    # Less than nothing only by noise, and no second.
    assert -1000 < alone["value"]["median"] < 1000
    for numbers in rows.values():
        assert 0 < numbers["value"]["min"] <= numbers["value"]["max"]
        assert "µs of CPU each" in numbers["ours"]
    # A service that does something is not faster than one that does nothing.
    against_no_op = rows["one row, JSON, 64 connections"]
    assert against_no_op["value"]["median"] < 1.2
    assert "requests/s" in (out / "serving.md").read_text()


@pytest.mark.timeout(300)
def test_quick_claims_count_each_job_once_and_find_nothing_locked(quick):
    content, out = quick("claims", peers=True)
    rows = {row["name"]: row["numbers"] for row in content["rows"]}
    assert len(rows) == 6
    assert rows.pop("refusals of a locked database, SQLite")["value"]["max"] == 0
    for numbers in rows.values():
        assert 0 < numbers["value"]["min"] <= numbers["value"]["max"]
    assert " 0 found the database locked" in rows["claims on SQLite"]["notes"][0]
    assert "SKIP LOCKED" in (out / "claims.md").read_text()


def test_claims_that_the_rows_contradict_are_no_figure(tmp_path):
    with sqlite_store(tmp_path / "store", 0.05) as store:
        store.round("ours")
        table = tables.jobs
        claimed = sa.select(table.c.id).where(table.c.state == "running").limit(1)
        twice = sa.update(table).where(table.c.id.in_(claimed)).values(token=2)
        with store.database.transaction() as connection:
            connection.execute(twice)
        with pytest.raises(PeerError, match="the rows say"):
            store.check(store.won[-1], has_events=True)


def test_a_load_with_failures_is_no_figure():
    answers = Load(10, 1, 1.0, np.ones(10), 0.1)
    with pytest.raises(PeerError, match="1 of 10"):
        checked(answers)
    assert checked(replace(answers, failures=0)).rate == 10.0


def test_a_peer_that_cannot_be_installed_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    with pytest.raises(PeerError, match="uv is not on PATH"):
        environment.find_python("mosec", tmp_path)


def test_a_program_answers_by_lines_and_ends_with_its_block(tmp_path):
    with Program(Path(sys.executable), "echo", tmp_path / "log") as program:
        assert program.call("echo", text="once") == {"text": "once"}
        took = program.contestant("nothing")()
        assert took.cpu_s >= 0
        process = program._process
    assert process.poll() == 0


def test_a_program_that_fails_says_why(tmp_path):
    with (
        Program(Path(sys.executable), "echo", tmp_path / "log") as program,
        pytest.raises(PeerError, match="ZeroDivisionError"),
    ):
        program.call("divide")


def test_what_was_started_ends_with_the_block(tmp_path):
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with Running(tmp_path) as running:
        process = running.start("sleeper", command, {})
        assert process.poll() is None
    assert process.poll() is not None


def test_a_server_that_ends_says_what_it_said(tmp_path):
    command = [sys.executable, "-c", "raise SystemExit('no port is free')"]
    with Running(tmp_path) as running:
        process = running.start("ending", command, {})
        with pytest.raises(PeerError, match="no port is free"):
            running.wait("ending", process, lambda: False)


def test_gradient_of_the_measured_step_is_that_of_its_loss():
    surrogate = small_surrogate(conserved=MASS)
    x0 = random_states(4)
    times = surrogate.grid.times

    def roll(model, x):
        return rollout(model, x, model.grid.plan(times))

    true = np.asarray(roll(surrogate, x0)) * 1.01
    loss = step_of(roll, surrogate, x0, true)()
    assert loss == pytest.approx(
        float(mean_squared_error(surrogate, roll(surrogate, x0), true))
    )
    assert loss > 0


def test_a_sweep_tells_what_a_unit_costs_over_the_cheapest():
    points = [(1, Took(9.0, 2.0)), (10, Took(9.0, 5.0)), (100, Took(9.0, 50.0))]
    told = _swept(Options(), "rows", lambda options: (points, "Why."), print)
    costs = [row[-1] for row in told["table"]["rows"]]
    assert costs == pytest.approx([4.0, 1.0, 1.0])
    assert told["notes"] == ["Why."]


def test_the_picture_of_a_group_lies_beside_its_page(monkeypatch, tmp_path):
    points = [(1, Took(9.0, 2.0)), (10, Took(9.0, 5.0))]
    workers = {"columns": ["workers", "rows/s", "of linear"], "rows": [(1, "9", 1.0)]}

    def swept(tell):
        return _swept(Options(), "rows", lambda options: (points, "Why."), tell)

    found = [
        Figure("rows", "linear", swept),
        Figure("workers", "linear", lambda tell: {"table": workers}),
    ]
    draw = scale.GROUP.draw
    group = Group("made-up", "Made up", "Nothing.", lambda *_: found, draw)
    run_made_up(monkeypatch, tmp_path, group)
    assert "![Made up](made-up.png)" in (tmp_path / "made-up.md").read_text()
    assert (tmp_path / "made-up.png").read_bytes().startswith(b"\x89PNG")


def test_a_process_that_computes_is_not_quiet(tmp_path, monkeypatch):
    monkeypatch.setattr(deployment, "READY_WITHIN_S", 2.0)
    with Running(tmp_path) as running:
        busy = running.start("busy", [sys.executable, "-c", "while True: pass"], {})
        with pytest.raises(PeerError, match="still computes"):
            Server(0, busy).wait_until_quiet()
        code = "import time; time.sleep(600)"
        still = running.start("still", [sys.executable, "-c", code], {})
        monkeypatch.setattr(deployment, "READY_WITHIN_S", 60.0)
        Server(0, still).wait_until_quiet()
        assert Server(0, still).rss_mb() > 1
