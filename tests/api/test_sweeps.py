"""Sweeps at the door: checked whole, queued whole, listed, cancelled."""

import pytest

from tests.api.test_errors import checked
from tests.api.test_evaluation import dataset

__all__ = ["dataset"]


@pytest.fixture
def body(dataset):
    grid = {"seed": [0, 1], "surrogate.latent": [2, 3]}
    return {"kind": "sweep", "dataset": dataset, "model": "swept", "grid": grid}


def test_a_sweep_is_checked_and_nothing_queued(client, body):
    before = client.get("/v1/jobs?kind=sweep").json()["data"]
    response = client.post("/v1/jobs?validate_only=true", json=body)
    assert response.status_code == 200, response.text
    kept = response.json()["request"]
    assert [each["settings"] for each in kept["candidates"]][1] == {
        "seed": 0,
        "surrogate.latent": 3,
    }
    assert kept["split"] == {"validation": 0.1, "test": 0.1, "seed": 0}
    assert client.get("/v1/jobs?kind=sweep").json()["data"] == before


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"grid": {"surrogate.latent": [2, -1]}}, "/grid/surrogate.latent/1"),
        ({"base": {"training": {"batch": 0}}}, "/base/training/batch"),
        ({"grid": {}, "candidates": [{}, {"seed": -1}]}, "/candidates/1/seed"),
        ({"grid": {}, "candidates": [{}]}, "/candidates"),
        ({"dataset": f"ds_{'0' * 26}"}, "/dataset"),
        ({"split": {"validation": 0.6, "test": 0.4}}, "/split"),
    ],
)
def test_a_wrong_sweep_is_refused_at_its_place(client, body, change, pointer):
    refused = client.post("/v1/jobs", json={**body, **change})
    checked(refused, 422, refused.json()["code"], pointer)


def test_candidates_are_listed_by_their_sweep_and_cancelled_with_it(client, body):
    made = client.post("/v1/jobs", json=body, headers={"idempotency-key": "s"})
    assert made.status_code == 202, made.text
    sweep = made.json()
    again = client.post("/v1/jobs", json=body, headers={"idempotency-key": "s"})
    assert again.json()["id"] == sweep["id"]
    assert sweep["parent"] is None
    listed = client.get("/v1/jobs", params={"parent": sweep["id"]}).json()["data"]
    jobs = [each["job"] for each in sweep["request"]["candidates"]]
    assert sorted(each["id"] for each in listed) == jobs
    assert {each["parent"] for each in listed} == {sweep["id"]}
    assert {each["kind"] for each in listed} == {"training"}
    cancelled = client.post(f"/v1/jobs/{sweep['id']}/cancel")
    assert cancelled.json()["state"] == "cancelled"
    listed = client.get("/v1/jobs", params={"parent": sweep["id"]}).json()["data"]
    assert {each["state"] for each in listed} == {"cancelled"}
