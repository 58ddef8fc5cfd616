"""Calibrations from the client: what is sent, what is read from a table."""

import json
import re

import numpy as np
import pytest

from spnode_client import Calibration, Client
from spnode_client.commands.calibrate import (
    describe,
    read_observations,
    read_unknowns,
)
from spnode_client.terminal import UsageError
from tests.client.conftest import Answer

SIGNATURE = {"states": ["a", "b"], "parameters": ["k"], "controls": ["u"]}
FOUND = {
    "estimates": [
        {
            "field": "controls",
            "name": "u",
            "control_interval": 1,
            "value": 0.5,
            "standard_error": None,
            "interval": [0.0, 1.0],
            "simultaneous": [0.0, 1.0],
            "at_bound": None,
            "is_identifiable": False,
        }
    ],
    "covariance": [[None]],
    "predicted": [[1.0]],
    "residuals": [[None]],
    "coverage": 0.95,
    "misfit": {"chi_squared": 2.0, "observations": 3, "p_value": None},
    "noise": {"a": 0.1},
    "converged": 4,
    "starts": 8,
    "optima": [{}],
    "domain": {"inside": True},
    "warnings": ["the observations do not tell +1.00 controls.u[1]"],
}


@pytest.mark.parametrize(
    ("place", "changed"),
    [
        ("observations[0][1]", {"observations": np.array([[1.0, np.inf]])}),
        ("noise[0]", {"noise": [-np.inf, 1.0]}),
        ("unknowns.x0.a.upper", {"unknowns": {"x0": {"a": {"upper": np.inf}}}}),
    ],
)
def test_a_number_that_is_not_finite_is_named(server, place, changed):
    given = {"times": [1.0], "observations": [[1.0, 2.0]], "unknowns": {}} | changed
    said = f"^{re.escape(place)}: found -?inf; expected a finite number"
    with Client(server.url) as client, pytest.raises(ValueError, match=said):
        client.calibrate("m", **given)
    assert server.asked == []


def test_what_is_missing_is_sent_as_null_and_estimates_come_back(server):
    job = {"id": "job_1", "kind": "calibration", "state": "queued"}
    server.answers += [
        Answer(202, json.dumps(job).encode()),
        Answer(
            200, json.dumps({**job, "state": "succeeded", "result": FOUND}).encode()
        ),
    ]
    with Client(server.url) as client:
        queued = client.calibrate(
            "m",
            np.array([1.0, 2.0]),
            np.array([[1.0, np.nan], [np.nan, 2.0]]),
            {"parameters": {"k": {"lower": 0, "upper": 1}}},
            noise=[0.1, np.float64(0.2)],
            x0=None,
        )
        found = queued.wait()
    asked = json.loads(server.asked[0].body)
    assert asked == {
        "kind": "calibration",
        "model": "m",
        "times": [1.0, 2.0],
        "observations": [[1.0, None], [None, 2.0]],
        "unknowns": {"parameters": {"k": {"lower": 0, "upper": 1}}},
        "noise": [0.1, 0.2],
    }
    assert isinstance(found, Calibration)
    assert found.values == {"controls.u[1]": 0.5}
    assert found["u[1]"].standard_error is None
    assert np.isnan(found.residuals).all()
    with pytest.raises(KeyError):
        found["k"]


def test_estimates_are_printed_with_their_intervals(capsys):
    describe(Calibration.of(FOUND))
    said = capsys.readouterr().out
    assert "controls.u[1]" in said
    assert "0 to 1" in said
    assert "noise estimated as a 0.1; 4 of 8 searches ended in 1 optima" in said


def test_a_table_gives_one_row_for_each_time(tmp_path):
    table = tmp_path / "seen.csv"
    table.write_text("time,state,value\n2,b,5\n1,b,4\n1,a,3\n2,b,6\n")
    states, body = read_observations(table, SIGNATURE["states"])
    assert states == ["a", "b"]
    assert body["times"] == [1, 2, 2]
    np.testing.assert_array_equal(
        body["observations"], [[3, 4], [np.nan, 5], [np.nan, 6]]
    )
    assert "noise" not in body
    table.write_text("time,state,value,sigma\n1,b,4,0.5\n")
    states, body = read_observations(table, SIGNATURE["states"])
    assert (states, body["noise"].tolist()) == (["b"], [[0.5]])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("t,state,value\n", "expected time, state, value"),
        ("time,state,value\n", "no observations"),
        ("time,state,value\n1,z,2\n", "line 2: found the state 'z'"),
        ("time,state,value\n1,a,two\n", "line 2"),
        ("time,state,value\n1,a\n", "line 2"),
    ],
)
def test_a_table_that_is_none_is_wrong_usage(tmp_path, text, words):
    table = tmp_path / "seen.csv"
    table.write_text(text)
    with pytest.raises(UsageError, match=words):
        read_observations(table, SIGNATURE["states"])


def test_unknowns_are_found_by_their_names():
    found = read_unknowns(["k=1:2", "a=0:1", "u=-1:1"], ["k=1.5:0.1"], SIGNATURE)
    assert found == {
        "parameters": {
            "k": {"lower": 1, "upper": 2, "prior": {"mean": 1.5, "sd": 0.1}}
        },
        "x0": {"a": {"lower": 0, "upper": 1}},
        "controls": {"u": {"lower": -1, "upper": 1}},
    }
    for wrong in ("k", "k=1", "k=a:b", "z=0:1"):
        with pytest.raises(UsageError, match="--unknown"):
            read_unknowns([wrong], [], SIGNATURE)
    with pytest.raises(UsageError, match="--prior"):
        read_unknowns(["k=1:2"], ["a=0:1"], SIGNATURE)
