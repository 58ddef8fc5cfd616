import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.systems.registry import systems
from benchmarks.systems.report import write_page

RESULTS = Path(__file__).parents[2] / "docs" / "results"
_QUICK = ["akzo_nobel", "e5", "fitzhugh_nagumo", "hydrogen_ignition"]


@pytest.mark.parametrize("name", _QUICK)
def test_a_system_makes_the_same_data_for_a_seed(name: str) -> None:
    system = systems()[name]
    data, again = (system.training_data(3, 0) for _ in range(2))
    assert data.trajectories == 3
    assert np.isfinite(data.states).all()
    assert (data.states == again.states).all()
    assert (data.states[0] != data.states[1]).any()


def test_unseen_trajectories_are_of_other_starts_and_between_the_samples() -> None:
    system = systems()["fitzhugh_nagumo"]
    data, unseen = system.training_data(3, 0), system.unseen(3, 0)
    assert set(unseen) == {"starts", "off_grid", "mid"}
    assert not np.isin(unseen["starts"].states[:, 0], data.states[:, 0]).any()
    off_grid = unseen["off_grid"]
    asked = off_grid.times[0] if off_grid.times.ndim > 1 else off_grid.times
    is_sample = np.isin(asked, data.times)
    is_present = off_grid.mask[0].any(axis=-1)
    assert (is_present[1:] == ~is_sample[1:]).all()


def test_the_page_counts_the_systems_and_names_those_without_a_result(tmp_path) -> None:
    rows = json.loads((RESULTS / "systems.json").read_text())
    few = {name: rows[name] for name in ("e5", "burgers")}
    (tmp_path / "systems.json").write_text(json.dumps(few))
    known = systems()
    page = write_page(tmp_path, known).read_text()
    assert f"2 of {len(known)} run so far" in page
    table = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
    head, *body = table
    assert {len(row) for row in body} == {len(head)}
    assert [row[0].removeprefix("| ") for row in body] == list(known)
    missing = {row[0].removeprefix("| ") for row in body if row[2] == "not run yet"}
    assert missing == set(known) - set(few)


@pytest.mark.parametrize("name", systems())
def test_stored_results_reach_their_bars(name: str) -> None:
    row = json.loads((RESULTS / "systems.json").read_text())[name]
    errors = {kind: each["error"] for kind, each in row["errors"].items()}
    assert row["worst"] == max(errors.values()) <= row["bar"]
    assert row["worst"] < min(row["baselines"].values()) / 3
    # Of rounding one is soon twice the other: what is far below its bar counts as well.
    others = max(errors["mid"], errors["off_grid"])
    assert others <= max(2 * errors["starts"], row["bar"] / 5)
    assert row["seconds"] < 660


def test_the_page_of_the_results_is_what_the_report_makes_of_them(tmp_path) -> None:
    shutil.copy(RESULTS / "systems.json", tmp_path)
    page = write_page(tmp_path, systems())
    assert page.read_text() == (RESULTS / "systems.md").read_text()
