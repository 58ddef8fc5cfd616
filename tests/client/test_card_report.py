"""A model card as a person reads it, and as a script does."""

import json
import zipfile
from pathlib import Path

import pytest

from spnode_client.commands.card_report import print_card
from spnode_client.commands.version_report import described, print_version
from spnode_client.terminal import percent
from tests.client.conftest import Answer
from tests.client.test_command_line import run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def card():
    """That of a training, as it was published."""
    with zipfile.ZipFile(ROOT / "docs" / "notebooks" / "enzyme.spnode") as file:
        found = json.loads(file.read("card.json"))
    found["certificate"]["spectral_abscissa"]["eigenvalues"] = [
        [-3, 2],
        [-3, -2],
        [-1, 0],
    ]
    return found


VERSION = {
    **{"model": "enzyme", "number": 3, "digest": "d" * 64, "size_bytes": 1 << 20},
    "created_at": "2026-01-02T03:04:05.5Z",
    "spec": {
        "latent": 8,
        "linear": {"kind": "modal"},
        "nonlinear": {"kind": "relaxation"},
        "autoencoder": {"kind": "none"},
        "integrator": "etd1",
    },
}


def test_a_card_says_what_a_version_is(card, capsys):
    print_card(VERSION, card)
    said = capsys.readouterr()
    lines = {" ".join(each.split()) for each in said.out.splitlines()}
    assert {"version enzyme/3", "size 1.00 MiB", "preset auto", "seed 0"} <= lines
    assert "dataset ds_01m8fpr853ehggwjgzvh81czbh" in lines
    assert "trajectories 48 for train, 6 for validation, 6 for test" in lines
    assert "test 6 0.004467 c 0.005539 0.04711" in lines
    assert "c 0.005539 0.0003788 0.01064" in lines
    assert "6 12 0.01128 c" in lines
    assert any(each.startswith("Every eigenvalue of A has real") for each in lines)
    assert any(each.startswith("NOT: Halving every step") for each in lines)
    assert "8 claims hold, 6 do not: models certificate has all" in lines
    assert "eigenvalues 3, 2 of them oscillating" in lines
    assert "real parts -3 to -1 1/time" in lines
    assert {"took 10.8 min", "iterations 10000"} <= lines
    assert said.err.startswith("WARNING: rollouts that start in the middle")


@pytest.mark.parametrize(
    "strange",
    [
        {},
        {"metrics": 3, "certificate": {"a": 1}, "choices": [1], "history": "x"},
        {"metrics": {"test": []}, "certificate": {"a": {"holds": True}}, "tags": [1]},
        {"certificate": {"spectral_abscissa": {"eigenvalues": [["a"], 1]}}},
        {"parent": {"a": 1}, "ensemble": [1], "equations": "y", "choices": [1]},
    ],
)
def test_a_card_that_was_made_elsewhere_may_hold_anything(strange, capsys):
    print_card({"model": "m", "number": 1}, strange)
    assert capsys.readouterr().out.split() == ["Version", "version", "m/1"]


def test_a_card_is_sections_for_a_person_and_json_for_a_script(server, card):
    bodies = (card, VERSION, card)
    server.answers += [Answer(200, json.dumps(each).encode()) for each in bodies]
    done = run("models", "card", "enzyme", SPNODE_URL=server.url)
    heads = [each for each in done.stdout.splitlines() if each[:1].isupper()]
    assert heads[:2] == ["Version", "Data"], done.stderr
    done = run("models", "card", "enzyme", "--json", SPNODE_URL=server.url)
    assert json.loads(done.stdout) == card


def test_warnings_that_are_none_are_left_out(capsys):
    print_card({"model": "m", "number": 1}, {"metrics": {"test": {"warnings": 3}}})
    assert capsys.readouterr().err == ""


def test_a_version_with_a_strange_card_is_described(capsys):
    strange = {"ensemble": [1], "equations": "y", "choices": [1, {"what": "candidate"}]}
    spec = VERSION["spec"]
    assert list(described(spec, strange))[1:] == ["tried None: None"]


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (0.0123, "1.2 %"),
        (0.5, "50 %"),
        (0.994, "99 %"),
        (0.996, "100 %"),
        (1.024, "102 %"),
        (21.0, "2,100 %"),
        (1e20, "1e+22 %"),
        (None, "not finite"),
    ],
)
def test_a_part_is_read_in_percent(part, said):
    assert percent(part) == said


def test_errors_beyond_the_spread_are_shown_in_whole_percent(capsys):
    domain = {"lower": [0.0], "upper": [1.0], "end": 2.0}
    signature = {"states": ["y"], "domain": domain}
    test = {
        "trajectories": 4,
        "normalised_rmse": 1.02,
        "states": {"y": {"normalised_rmse": 1.02, "rmse": 0.1}},
        "mid_trajectory": {"normalised_rmse": 21.0},
        "baselines": {"linear_dmd": {"normalised_rmse": None}},
    }
    more = {"signature": signature, "evaluation": {"test": test}}
    print_version({**VERSION, **more}, {})
    said = capsys.readouterr().out
    assert ["y", "0", "1", "102", "%", "0.1"] in map(str.split, said.splitlines())
    assert "102 % in all" in said
    assert "from later samples: 2,100 %" in said
    assert "trivial models: linear dmd not finite" in said
