"""Rollouts as files read back as they were; pictures are pictures."""

import numpy as np
import pytest
import xarray
from matplotlib import pyplot

from spnode_client.commands.rollout_file import (
    check_file,
    draw_rollout,
    write_rollout,
)
from spnode_client.records import ModelVersion, Rollout
from spnode_client.terminal import UsageError

TIMES = np.array([0.1, 1.0, 10.0])


def version(names, units=()):
    signature = {"states": names, "units": list(units), "time_unit": "s"}
    return ModelVersion("m", 1, "", {"signature": signature})


@pytest.fixture
def answer():
    x = np.random.default_rng(0).normal(size=(2, 3, 2))
    return Rollout(x, TIMES, "m", 1, "", lower=x - 1, upper=x + 1, coverage=0.8)


def test_npz_and_csv_read_back_exactly(answer, tmp_path):
    write_rollout(answer, version(["a", "b"]), tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as file:
        np.testing.assert_array_equal(file["states"], answer.x)
    write_rollout(answer, version(["a", "b"]), tmp_path / "x.csv")
    lines = (tmp_path / "x.csv").read_text().splitlines()
    assert lines[0] == "trajectory,time,a,b,a_lower,b_lower,a_upper,b_upper"
    last = [float(cell) for cell in lines[-1].split(",")]
    assert last == [1, 10.0, *answer.x[1, 2], *answer.lower[1, 2], *answer.upper[1, 2]]
    assert {path.name for path in tmp_path.iterdir()} == {"x.npz", "x.csv"}


def test_netcdf_keeps_names_units_and_intervals(answer, tmp_path):
    write_rollout(answer, version(["a", "b"], ["mol", "K"]), tmp_path / "x.nc")
    with xarray.open_dataset(tmp_path / "x.nc", engine="h5netcdf") as found:
        np.testing.assert_array_equal(found["x"].sel(state="b"), answer.x[..., 1])
        np.testing.assert_array_equal(found["upper"], answer.upper)
        assert found["unit"].values.tolist() == ["mol", "K"]
        assert found["time"].attrs["units"] == "s"
        assert found.attrs["coverage"] == 0.8


@pytest.mark.parametrize("states", [2, 40])
@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_a_picture_is_drawn_of_few_states_and_of_many(states, ending, tmp_path):
    x = np.random.default_rng(0).normal(size=(3, states))
    names = [f"y{i}" for i in range(states)]
    path = tmp_path / f"x{ending}"
    draw_rollout(Rollout(x, TIMES, "m", 1, ""), version(names), path)
    if ending == ".png":
        pixels = pyplot.imread(path)
        assert pixels.shape[0] > 200
        assert pixels.std() > 0.02, "an empty picture"
    else:
        assert "m/1" in path.read_text() or "<path" in path.read_text()


@pytest.mark.parametrize("states", [2, 40])
def test_dollars_in_names_are_no_formulas(states, tmp_path):
    x = np.random.default_rng(0).normal(size=(3, states))
    names = [rf"$\ce{{H{i}}}$" for i in range(states)]
    made = version(names, ["US$ per $"] * states)
    made.record["signature"]["time_unit"] = r"$\hour$"
    path = tmp_path / "x.png"
    draw_rollout(Rollout(x, TIMES, "m", 1, ""), made, path)
    assert path.stat().st_size > 1000


def test_a_file_of_another_kind_is_refused_before_anything_is_asked(answer, tmp_path):
    with pytest.raises(UsageError, match=r"\.png or \.svg"):
        check_file(tmp_path / "x.txt", "--plot", (".png", ".svg"))
    with pytest.raises(UsageError, match="no such folder"):
        check_file(tmp_path / "nowhere" / "x.png", "--plot", (".png",))
    with pytest.raises(UsageError, match=r"\.csv, \.npz or \.nc"):
        write_rollout(answer, version(["a", "b"]), tmp_path / "x.txt")
    assert not list(tmp_path.iterdir())
