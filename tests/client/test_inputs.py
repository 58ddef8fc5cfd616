"""What the commands that roll out a model say of inputs, precision and rows that fail."""

import json

import numpy as np
import xarray

from spnode_client.arrays import pack, unpack
from tests.client.conftest import Answer
from tests.client.test_command_line import run

VERSION = {"model": "m", "number": 1, "signature": {"states": ["a"], "controls": ["u"]}}
CONTROLS = ("--controls", "300;301", "--control-times", "0,0.5")


def test_a_masked_row_is_nan_and_is_named(server):
    x = np.array([[[1.0]], [[np.nan]], [[2.0]]])
    members = {"x": x, "times": [1.0], "model": "m", "version": 1, "digest": ""}
    kind = {"content-type": "application/x-npz"}
    server.answers.append(Answer(body=json.dumps(VERSION).encode()))
    server.answers.append(Answer(body=pack(members), headers=kind))
    rows = ("rollout", "m", "--x0", "1;2;3", "--times", "1", "--on-error", "mask")
    done = run(*rows, SPNODE_URL=server.url)
    assert done.stdout == "trajectory,time,a\n0,1.0,1.0\n1,1.0,nan\n2,1.0,2.0\n"
    assert done.stderr == "left the finite range, by row: 1\n"
    assert unpack(server.asked[1].body)["on_error"] == "mask"


def test_a_rollout_is_written_as_netcdf_and_drawn(server, tmp_path):
    x = np.array([[[1.0], [0.5]], [[2.0], [1.0]]])
    members = {"x": x, "times": [1.0, 2.0], "model": "m", "version": 1, "digest": ""}
    server.answers.append(Answer(body=json.dumps(VERSION).encode()))
    kind = {"content-type": "application/x-npz"}
    server.answers.append(Answer(body=pack(members), headers=kind))
    file, picture = tmp_path / "x.nc", tmp_path / "x.png"
    rows = ("rollout", "m", "--x0", "1;2", "--times", "1,2")
    done = run(*rows, "--out", file, "--plot", picture, SPNODE_URL=server.url)
    assert done.returncode == 0, done.stderr
    assert f"wrote {file}" in done.stderr
    with xarray.open_dataset(file, engine="h5netcdf") as found:
        np.testing.assert_array_equal(found["x"].sel(state="a"), x[..., 0])
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_rollout_job_takes_controls_and_precision(server):
    job = {"id": "job_1", "state": "queued"}
    server.answers.append(Answer(202, json.dumps(job).encode()))
    rows = ("jobs", "rollout", "m", "--times", "1", "--x0", "1")
    done = run(*rows, *CONTROLS, "--precision", "float64", SPNODE_URL=server.url)
    assert done.stdout == "job_1 queued\n", done.stderr
    asked = unpack(server.asked[0].body)
    assert asked["controls"].tolist() == [[300], [301]]
    assert asked["control_times"].tolist() == [0, 0.5]
    assert json.loads(str(asked["request"]))["precision"] == "float64"


def test_pictures_go_where_every_spelling_of_output_says(server, tmp_path):
    for option in ("--output", "--out", "-o"):
        server.answers.append(Answer(body=b'{"plots": []}'))
        words = ("models", "plots", "m/1", option, str(tmp_path / option))
        done = run(*words, SPNODE_URL=server.url)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / option).is_dir()
