"""Comparisons from the client and the command line, and the alias they guard."""

import json

import pytest

from spnode_client import Client, Comparison
from spnode_client.commands.compare import check_no_worse, describe
from spnode_client.errors import ClientError
from tests.client.conftest import Answer

DATASET = f"ds_{'0' * 26}"


def judged(error):
    worst = {"worst_state": {"name": "a", "normalised_rmse": error}}
    part = {**worst, "normalised_rmse": error, "states": {"a": error}}
    return {"error": error, **part, "mid_trajectory": part}


def found(old, new, is_worse):
    constant = judged(1.0)
    return {
        "dataset": DATASET,
        "part": "test",
        "trajectories": 50,
        "reference": "m/2",
        "scalings": {"a": "linear"},
        "surrogates": {"m/2": judged(old), "m/3": judged(new)},
        "baselines": {"constant": constant},
        "paired": {"m/3": {"is_worse": is_worse, "verdict": "better on 41 of 50"}},
        "warnings": ["m/2 learned from some of these"],
    }


def answers(result):
    job = {"id": "job_1", "kind": "evaluation", "state": "queued"}
    ended = {**job, "state": "succeeded", "result": result}
    return [
        Answer(202, json.dumps(job).encode()),
        Answer(200, json.dumps(ended).encode()),
    ]


def at(number):
    record = {"model": "m", "number": number, "digest": "d"}
    return Answer(200, json.dumps(record).encode())


def test_versions_are_sent_as_references_and_the_comparison_comes_back(server):
    server.answers += [at(2), *answers(found(0.02, None, True))]
    with Client(server.url) as client:
        version = client.models.version("m/2")
        job = client.models.compare(version, "m/3", dataset=DATASET, part=None)
        comparison = job.wait()
    assert json.loads(server.asked[1].body) == {
        "kind": "evaluation",
        "models": ["m/2", "m/3"],
        "dataset": DATASET,
    }
    assert isinstance(comparison, Comparison)
    assert comparison.errors == {"m/2": 0.02, "m/3": None}
    assert comparison.is_worse("m/3")


def test_a_comparison_is_a_table_and_a_sentence(capsys):
    describe(Comparison.of(found(0.02, None, True)))
    said = capsys.readouterr().out
    assert "on the test part" in said
    assert "constant" in said
    assert "not finite" in said
    assert "better on 41 of 50" in said
    assert "WARNING: m/2 learned" in said


def test_an_alias_stays_where_the_version_is_worse(server):
    server.answers += [at(2), *answers(found(0.02, 0.03, True))]
    words = r"m@champion stays at m/2.*0.03 of the spread, against 0.02; --force"
    with Client(server.url) as client, pytest.raises(ClientError, match=words):
        check_no_worse(client, "m", "champion", 3, DATASET)


def test_an_alias_may_move_where_the_version_is_no_worse(server):
    server.answers += [at(2), *answers(found(0.02, 0.01, False)), at(3)]
    missing = {"status": 404, "code": "not_found", "title": "", "detail": ""}
    body = json.dumps(missing).encode()
    headers = {"content-type": "application/problem+json"}
    server.answers.append(Answer(404, body, headers))
    with Client(server.url) as client:
        assert check_no_worse(client, "m", "champion", 3, DATASET)
        # It is there already, or the alias points nowhere: nothing to compare.
        assert check_no_worse(client, "m", "champion", 3, DATASET) is None
        assert check_no_worse(client, "m", "challenger", 3, DATASET) is None


def test_a_warm_start_is_sent_as_a_reference(server):
    job = {"id": "job_1", "kind": "training", "state": "queued"}
    server.answers += [at(2), Answer(202, json.dumps(job).encode())]
    with Client(server.url) as client:
        version = client.models.version("m@champion")
        client.train(DATASET, "m", warm_start=version)
    assert json.loads(server.asked[1].body)["warm_start"] == "m/2"
