"""Sweeps from the client and the command line."""

import json

import pytest

from spnode_client import Client, Ranking
from spnode_client.commands.sweep import describe, parse_values
from spnode_client.progress_line import candidates_done, done_of
from spnode_client.terminal import UsageError
from tests.client.conftest import Answer

DATASET = f"ds_{'0' * 26}"


def row(job, version, validation, test, error=None, **settings):
    return {
        "job": job,
        "settings": settings,
        "state": "failed" if error else "succeeded",
        "version": version,
        "digest": version and "d",
        "seconds": 3.2,
        "error": error,
        "validation": validation,
        "test": test,
    }


FOUND = {
    "model": "m",
    "best": 2,
    "digest": "d",
    "trajectories": {"validation": 5, "test": 4},
    "aliases": ["challenger", "champion"],
    "ranking": [
        row("job_2", 2, 0.012345, 0.02, seed=1),
        row("job_1", 1, None, None, seed=0),
        row("job_3", None, None, None, {"detail": "the data recurs"}, certified=True),
    ],
}


def test_a_sweep_is_asked_for_and_its_ranking_comes_back(server):
    job = {"id": "job_0", "kind": "sweep", "state": "queued"}
    ended = {**job, "state": "succeeded", "result": FOUND}
    server.answers += [
        Answer(202, json.dumps(job).encode()),
        Answer(200, json.dumps(ended).encode()),
    ]
    with Client(server.url) as client:
        grid = {"seed": [0, 1]}
        asked = client.sweep(DATASET, "m", grid=grid, alias="challenger", preset="auto")
        ranking = asked.wait()
    assert json.loads(server.asked[0].body) == {
        "kind": "sweep",
        "dataset": DATASET,
        "model": "m",
        "grid": grid,
        "alias": "challenger",
        "base": {"preset": "auto"},
    }
    assert isinstance(ranking, Ranking)
    assert str(ranking) == "m/2"
    best, other, failed = ranking.candidates
    assert (best.version, best.settings, best.failure) == (2, {"seed": 1}, "")
    assert (other.validation, other.failure) == (None, "")
    assert (failed.version, failed.failure) == (None, "the data recurs")


def test_a_ranking_is_a_table_and_says_what_failed(capsys):
    describe(Ranking.of(FOUND))
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert lines[0].split() == [
        *("version", "seed", "certified", "validation", "test", "seconds")
    ]
    assert lines[1].split() == ["m/2", "1", "0.01235", "0.02", "3"]
    assert "not finite" in lines[2]
    assert "job_3: the data recurs" in said
    assert "on 5 validation and 4 test trajectories" in said
    assert "m/2 is best; it is m@challenger, m@champion" in said


def test_an_ensemble_is_asked_for_and_told(server, capsys):
    joined = {"version": 4, "digest": "e", "members": [2, 1]}
    joined |= {"validation": 0.011, "test": 0.013}
    job = {"id": "job_0", "kind": "sweep", "state": "succeeded"}
    warnings = ["2 joined, where 3 were asked for"]
    ended = {**job, "result": {**FOUND, "ensemble": joined, "warnings": warnings}}
    server.answers += [Answer(202, json.dumps(ended).encode())] * 2
    with Client(server.url) as client:
        asked = client.sweep(DATASET, "m", grid={"seed": [0, 1]}, ensemble=2)
        ranking = asked.wait()
    assert json.loads(server.asked[0].body)["ensemble"] == 2
    assert ranking.ensemble is not None
    assert (ranking.ensemble.version, ranking.ensemble.members) == (4, (2, 1))
    assert (ranking.best, str(ranking)) == (2, "m/4")
    describe(ranking)
    said = capsys.readouterr().out
    assert "2 joined, where 3 were asked for" in said
    assert "m/2, m/1 joined: 0.011 validation and 0.013 test" in said
    assert "m/4 is the ensemble; it is m@challenger, m@champion" in said


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed=0,1, 2", ("seed", [0, 1, 2])),
        ("preset=auto,smooth", ("preset", ["auto", "smooth"])),
        ("warm_start=null,m@champion", ("warm_start", [None, "m@champion"])),
        (
            'surrogate.linear={"kind":"modal","oscillating":1},{"kind":"hurwitz"}',
            (
                "surrogate.linear",
                [{"kind": "modal", "oscillating": 1}, {"kind": "hurwitz"}],
            ),
        ),
    ],
)
def test_values_are_read_as_json_or_as_words(text, expected):
    assert parse_values(text) == expected


@pytest.mark.parametrize("text", ["seed", "=1,2", "seed="])
def test_values_of_no_field_are_wrong_usage(text):
    with pytest.raises(UsageError, match="expected a field and its values"):
        parse_values(text)


def test_progress_counts_candidates():
    progress = {"candidates": 8, "succeeded": 3, "failed": 1, "cancelled": 0}
    assert candidates_done(progress) == "3 of 8 trained, 1 not"
    assert done_of(progress) == (4, 8)
