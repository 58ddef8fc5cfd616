"""Calibration jobs at the door: what is refused and where, what the row keeps."""

import pytest

from tests.api.test_errors import checked

BOUNDS = {"lower": 0.5, "upper": 2.0}
ASKED = {
    "kind": "calibration",
    "model": "forced",
    "times": [0.1, 1.0, 10.0],
    "states": ["a", "c"],
    "observations": [[0.5, None], [0.4, 0.5], [None, 0.6]],
    "noise": [0.01, 0.01],
    "x0": [0.5, 1e-5, 0.5],
    "controls": [[0.0, 0.0], [0.5, 0.0]],
    "control_times": [0.0, 5.0],
    "unknowns": {"parameters": {"p0": BOUNDS}},
}


def without(name):
    return {key: value for key, value in ASKED.items() if key != name}


def test_the_version_is_fixed_when_a_job_is_submitted(client):
    response = client.post("/v1/jobs?validate_only=true", json=ASKED)
    assert response.status_code == 200, response.text
    kept = response.json()["request"]
    version = client.get("/v1/models/forced/versions/1").json()
    assert (kept["version"], kept["digest"]) == (1, version["digest"])
    assert {name: kept[name] for name in ASKED if name != "unknowns"} == {
        name: value for name, value in ASKED.items() if name != "unknowns"
    }
    # The models of these tests have no errors by state.
    assert kept["model_error"] is None
    given = client.post(
        "/v1/jobs?validate_only=true", json={**ASKED, "model_error": [1e-3, 0.0]}
    )
    assert given.json()["request"]["model_error"] == [1e-3, 0.0]


def test_a_job_is_queued_once_for_its_key_and_cancelled(client):
    headers = {"idempotency-key": "calibration-1"}
    first = client.post("/v1/jobs", json=ASKED, headers=headers)
    assert first.status_code == 202, first.text
    again = client.post("/v1/jobs", json=ASKED, headers=headers)
    job = first.json()
    assert again.json()["id"] == job["id"]
    listed = client.get("/v1/jobs", params={"kind": "calibration"}).json()["data"]
    assert job["id"] in {each["id"] for each in listed}
    checked(client.get(f"/v1/jobs/{job['id']}/result"), 404, "not_found")
    cancelled = client.post(f"/v1/jobs/{job['id']}/cancel").json()
    assert cancelled["state"] == "cancelled"


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"unknowns": {}}, "/unknowns"),
        ({"unknowns": {"parameters": {"k": BOUNDS}}}, "/unknowns/parameters/k"),
        (
            {"unknowns": {"parameters": {"p0": {"lower": 2.0, "upper": 1.0}}}},
            "/unknowns/parameters/p0",
        ),
        (
            {"unknowns": {"parameters": {"p0": {"lower": 2.0}}}},
            "/unknowns/parameters/p0/upper",
        ),
        ({"observations": [[0.5, 0.5]]}, "/observations"),
        ({"observations": [[0.5, "a"], [0.4, 0.5], [0.1, 0.6]]}, "/observations/0/1"),
        ({"noise": [0.01, -1.0]}, "/noise/1"),
        ({"noise": [[0.01, 0.01], [0.01, 0.0], [0.01, 0.01]]}, "/noise/1/1"),
        ({"times": [0.1, 0.05, 10.0]}, "/times/1"),
        ({"states": ["a", "z"]}, "/states/1"),
        ({"x0": [0.5, None, 0.5]}, "/x0/1"),
        ({"parameters": [1.0, 2.0]}, "/parameters"),
        ({"starts": 257}, "/starts"),
        ({"coverage": 1.0}, "/coverage"),
        ({"sigma": 1.0}, "/sigma"),
    ],
)
def test_what_cannot_be_used_is_named(client, change, pointer):
    response = client.post("/v1/jobs", json={**ASKED, **change})
    checked(response, 422, response.json()["code"], pointer)


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        (
            {"lower": 2.0, "upper": 1.0},
            "found lower 2.0 and upper 1.0; expected lower below upper",
        ),
        (
            {"lower": 1.0, "upper": 2.0, "start": 3.0},
            "found start 3.0; expected start from 1.0 to 2.0",
        ),
        (
            {"lower": -1.0, "upper": 2.0, "scale": "log"},
            "found scale 'log' and lower -1.0; expected lower above 0",
        ),
    ],
)
def test_bounds_that_cannot_be_are_told(client, bounds, said):
    sent = {**ASKED, "unknowns": {"parameters": {"p0": bounds}}}
    problem = checked(client.post("/v1/jobs", json=sent), 422, "invalid")
    assert problem["errors"] == [{"pointer": "/unknowns/parameters/p0", "detail": said}]


def test_a_model_that_is_not_there_is_not_found(client):
    response = client.post("/v1/jobs", json={**ASKED, "model": "nobody"})
    checked(response, 404, "not_found")


def test_a_prior_needs_the_noise(client):
    priors = {"parameters": {"p0": {**BOUNDS, "prior": {"mean": 1.0, "sd": 0.1}}}}
    response = client.post("/v1/jobs", json={**without("noise"), "unknowns": priors})
    checked(response, 422, response.json()["code"], "/noise")


def test_too_many_observations_are_refused(client):
    times = [float(i) for i in range(6000)]
    body = {**ASKED, "times": times, "observations": [[0.5, 0.5]] * len(times)}
    response = client.post("/v1/jobs", json=body)
    checked(response, 422, response.json()["code"], "/observations")
    assert "10000" in response.json()["detail"]
