"""``reproduce`` on a made-up example: stored rows, restart, report, exit codes."""

import json

import matplotlib.image
import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.paper import command as paper
from benchmarks.paper.command import Request, reproduce
from benchmarks.paper.index import write_index
from benchmarks.paper.machine import commit, machine
from benchmarks.paper.rows import (
    Bar,
    Example,
    Options,
    Record,
    Row,
    at_most,
    select,
    table,
)
from benchmarks.paper.store import Store
from benchmarks.paper.trained import described
from deploy import measuring
from deploy.reproduce import _command, _seeds
from spnode_client.cli import make_app
from spnode_client.terminal import UsageError
from spnode_core import TrainingSpec

LIMIT = 5.0


class Counting:
    """An example of three rows that counts what it measures and may be interrupted."""

    def __init__(self, stop_at=None, factor=1.0):
        self.measured, self.stop_at, self.factor = [], stop_at, factor

    def example(self):
        return Example(
            name="counting",
            title="Counting",
            about="Squares.",
            rows=lambda options: [self._row(seed) for seed in options.seeds],
            tables=lambda records: table(
                ("row", "square"), [(n, r.numbers["x"]) for n, r in records.items()]
            ),
            bars=self._bars,
            draw=self._draw,
        )

    def _row(self, seed):
        def measure(tell):
            if seed == self.stop_at:
                raise KeyboardInterrupt
            self.measured.append(seed)
            return {"x": self.factor * seed**2, "curve": np.arange(2), "bad": np.nan}

        settings = {"seed": seed, "factor": self.factor}
        return Row(f"seed {seed}", settings, measure)

    def _bars(self, records):
        found = [record.numbers["x"] for record in records.values()]
        asked = f"≤ {LIMIT}"
        return [Bar("square", "–", asked, str(found), at_most(found, LIMIT))]

    def _draw(self, records, figure):
        axes = figure.subplots()
        axes.plot([record.numbers["x"] for record in records.values()])


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Reproduce a counting example into a folder."""

    def go(counting, commit="abc1234", **choices):
        monkeypatch.setattr(paper, "EXAMPLES", {"counting": counting.example()})
        monkeypatch.setattr(paper, "commit", lambda root: commit)
        seeds = choices.pop("seeds", (0, 1, 2))
        request = Request(
            examples=["counting"],
            options=Options(seeds=seeds),
            out=tmp_path,
            command="./spnode reproduce counting",
            **choices,
        )
        return reproduce(request)

    return go


def test_interrupted_run_goes_on_after_its_last_finished_row(run, tmp_path):
    first = Counting(stop_at=2)
    with pytest.raises(KeyboardInterrupt):
        run(first)
    assert first.measured == [0, 1]
    # The page of what there is was written all the same.
    assert "seed 1" in (tmp_path / "counting.md").read_text()
    second = Counting()
    run(second)
    assert second.measured == [2]


def test_finished_rows_are_measured_anew_for_other_source_or_settings(run):
    run(Counting())
    other_commit = Counting()
    run(other_commit, commit="def5678")
    assert other_commit.measured == [0, 1, 2]
    other_settings = Counting(factor=2.0)
    run(other_settings, commit="def5678")
    assert other_settings.measured == [0, 1, 2]
    kept = Counting(factor=2.0)
    run(kept, commit="1234567", keep=True)
    assert kept.measured == []
    again = Counting(factor=2.0)
    run(again, commit="def5678", again=True, only="seed 1")
    assert again.measured == [1]


def test_page_marks_rows_that_were_measured_with_other_settings(run, tmp_path):
    run(Counting())
    assert "other settings" not in (tmp_path / "counting.md").read_text()
    run(Counting(factor=2.0), only="seed 1")
    marked = [
        line
        for line in (tmp_path / "counting.md").read_text().splitlines()
        if "other settings" in line
    ]
    assert [line.split(" (")[0] for line in marked] == ["| seed 0", "| seed 2"]


def test_a_setting_that_came_later_leaves_stored_rows_as_they_are(tmp_path):
    now = described(None, None, kind="x")
    before = json.loads(json.dumps(now))
    del before["training"]["later_starts"]
    path, row = tmp_path / "x.json", Row("row", now, lambda tell: {})
    store = Store(path, "abc")

    def is_stale(settings):
        store.add(Record("row", settings, {}, 1.0, "abc", "", {}, {}))
        return bool(Store(path, "abc").stale([row]))

    assert not is_stale(before)
    assert is_stale(before | {"training": before["training"] | {"later_starts": 1}})
    assert is_stale(before | {"training": {"gone": 1}})
    assert is_stale(before | {"kind": "y"})


def test_settings_of_a_row_hold_defaults_and_what_its_preset_decides():
    plain = described(None, None, kind="x")
    rate = TrainingSpec.model_fields["learning_rate"].default
    assert (plain["kind"], plain["training"]["learning_rate"]) == ("x", rate)
    assert plain["surrogate"]["nonlinear"]["kind"] == "relaxation"
    # The same words under another preset are another row.
    smooth = described(None, None, "smooth", kind="x")
    assert smooth["surrogate"]["nonlinear"]["kind"] == "quadratic"
    assert smooth["training"]["initial"]["points"] == 18


def test_bars_are_judged_from_all_stored_rows(run):
    assert [bar["passed"] for bar in run(Counting(), seeds=(0, 1))] == [True]
    assert [bar["passed"] for bar in run(Counting(), seeds=(3,))] == [False]


def test_results_say_where_and_how_they_were_made(run, tmp_path):
    run(Counting(), seeds=(0, 1))
    content = json.loads((tmp_path / "counting.json").read_text())
    row = content["rows"][1]
    assert (row["commit"], row["settings"]["seed"]) == ("abc1234", 1)
    assert row["command"] == "./spnode reproduce counting"
    assert row["numbers"] == {"x": 1.0, "curve": [0, 1], "bad": None}
    assert set(row["machine"]) == {"cores", "memory_gib", "machine"}
    assert {"python", "jax", "numpy"} <= set(row["versions"])
    page = (tmp_path / "counting.md").read_text()
    for told in (
        "# Counting",
        "abc1234",
        "./spnode reproduce counting",
        "| seed 1 | 1 |",
    ):
        assert told in page
    picture = matplotlib.image.imread(tmp_path / "counting.png")
    assert picture.shape[1] > 500


def test_index_shows_every_bar_and_whether_it_was_reached(run, tmp_path):
    run(Counting(), seeds=(0, 3))
    text = (tmp_path / "README.md").read_text()
    assert "[Counting](counting.md)" in text
    assert "**not reached**" in text
    (tmp_path / "counting.json").unlink()
    write_index(tmp_path, [Counting().example()])
    assert "Not run yet" in (tmp_path / "README.md").read_text()


def test_damaged_store_counts_as_empty(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"rows": [')
    assert Store(path, "abc").records == {}


def test_records_are_selected_by_their_settings(run, tmp_path):
    run(Counting())
    records = Store(tmp_path / "counting.json", "abc1234").records
    assert [record.name for record in select(records, seed=1)] == ["seed 1"]


def test_source_and_machine_are_named_without_a_host(tmp_path):
    assert commit(tmp_path) == "unknown"
    assert commit(paper.ROOT)[:7].isalnum()
    assert machine()["cores"] >= 1


def test_command_repeats_what_was_typed_but_for_the_folder():
    typed = _command("ks", "0,1", quick=False, again=True, keep=False, only="latent 7")
    assert typed == "./spnode reproduce ks --again --only 'latent 7' --seeds 0,1"


@pytest.mark.parametrize("text", ["", "a", "1,,2", "-1"])
def test_seeds_that_are_none_are_wrong_usage(text):
    with pytest.raises(UsageError, match="--seeds"):
        _seeds(text)


def test_unknown_example_is_wrong_usage_and_a_missed_bar_is_exit_code_1(
    tmp_path, monkeypatch
):
    app = make_app()
    app.command()(measuring.reproduce)
    runner = CliRunner()
    done = runner.invoke(app, ["reproduce", "nothing"])
    assert isinstance(done.exception, UsageError)
    monkeypatch.setattr(paper, "EXAMPLES", {"counting": Counting().example()})
    arguments = ["reproduce", "counting", "--out", str(tmp_path), "--json", "--seeds"]
    assert runner.invoke(app, [*arguments, "0,1"]).exit_code == 0
    assert runner.invoke(app, [*arguments, "3"]).exit_code == 1
    assert "Example:" in runner.invoke(app, ["reproduce", "--help"]).stdout


def test_a_truth_that_another_run_cached_meanwhile_is_no_error(tmp_path):
    from benchmarks.paper.chaos import _cached

    def solve():
        # The other run ends while this one still computes.
        _cached(tmp_path, "truth", lambda: np.ones(3))
        return np.ones(3)

    assert _cached(tmp_path, "truth", solve).tolist() == [1.0, 1.0, 1.0]
