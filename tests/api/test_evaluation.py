"""Warm starts and comparisons at the door: what is refused, where, what is kept."""

import numpy as np
import pytest

from tests.api.test_errors import NPZ, checked, npz


@pytest.fixture(scope="module")
def dataset(client):
    """Trajectories with the states of "small" and "mixed"."""
    times, rates = np.linspace(0.0, 1.0, 5), np.arange(1, 6)[:, None, None]
    states = np.exp(-rates * times[:, None] * np.ones(3))
    body = npz(states=states, times=times, names=np.array(["a", "b", "c"]))
    made = client.post("/v1/datasets", content=body, headers=NPZ)
    assert made.status_code == 201, made.text
    return made.json()["id"]


def test_a_comparison_keeps_the_versions_it_was_asked_for(client, dataset):
    body = {"kind": "evaluation", "models": ["small", "mixed/1"], "dataset": dataset}
    response = client.post("/v1/jobs?validate_only=true", json=body)
    assert response.status_code == 200, response.text
    kept = response.json()["request"]
    assert [each["model"] for each in kept["versions"]] == ["small", "mixed"]
    assert kept["part"] == "all"
    for change, pointer in (
        ({"models": ["small"]}, "/models"),
        ({"models": ["small", "forced"]}, "/models/1"),
        ({"part": "train"}, "/part"),
        ({"part": "test"}, "/part"),
    ):
        refused = client.post("/v1/jobs", json={**body, **change})
        checked(refused, 422, refused.json()["code"], pointer)
    missing = client.post("/v1/jobs", json={**body, "models": ["small", "nobody"]})
    checked(missing, 404, "not_found")


def test_a_warm_start_names_its_parent_or_the_field_that_is_wrong(client, dataset):
    body = {"kind": "training", "dataset": dataset, "model": "m", "warm_start": "small"}
    response = client.post("/v1/jobs?validate_only=true", json=body)
    assert response.status_code == 200, response.text
    version = client.get("/v1/models/small/versions/1").json()
    parent = {"model": "small", "version": 1, "digest": version["digest"]}
    assert response.json()["request"]["parent"] == parent
    forced = client.post("/v1/jobs", json={**body, "warm_start": "forced"})
    problem = checked(forced, 422, "invalid", "/warm_start")
    assert "forced/1, which takes the parameters p0" in problem["detail"]
    missing = client.post("/v1/jobs", json={**body, "warm_start": "nobody"})
    checked(missing, 422, "version_not_found", "/warm_start")
    other = client.post("/v1/jobs", json={**body, "surrogate": {"latent": 9}})
    checked(other, 422, "invalid", "/surrogate/latent")
