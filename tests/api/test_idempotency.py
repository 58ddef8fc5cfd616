"""What is sent again under its Idempotency-Key gets the first answer, done once."""

import json

import numpy as np
import pytest

from tests.api.test_calibration import ASKED
from tests.api.test_errors import NPZ, checked, npz

TIMES, RATES = np.linspace(0.0, 1.0, 5), np.arange(1, 6)[:, None, None]
STATES = np.exp(-RATES * TIMES[:, None] * np.ones(3))
X0 = [[0.5, 1e-5, 0.5]]
ROLLOUT = {"kind": "rollout", "model": "small@passing", "times": [0.1, 1.0]}
SWEEP = {"kind": "sweep", "model": "swept", "grid": {"seed": [0, 1]}}


@pytest.fixture
def dataset(client):
    """Trajectories with the states of "small" and "mixed"."""
    body = npz(states=STATES, times=TIMES, names=np.array(["a", "b", "c"]))
    made = client.post("/v1/datasets", content=body, headers=NPZ)
    assert made.status_code == 201, made.text
    return made.json()["id"]


@pytest.fixture(params=["small", "forced"])
def passing(client, request):
    """An alias that is deleted by and by."""
    path = f"/v1/models/{request.param}/aliases/passing"
    made = client.put(path, json={"version": 1}, headers={"if-none-match": "*"})
    assert made.status_code in (200, 201), made.text
    yield path
    client.delete(path, headers={"if-match": made.headers["etag"]})


def sent(client, body, key):
    headers = {"idempotency-key": key}
    if isinstance(body, bytes):
        return client.post("/v1/jobs", content=body, headers={**headers, **NPZ})
    return client.post("/v1/jobs", json=body, headers=headers)


def queued(client, body, key):
    first = sent(client, body, key)
    assert first.status_code == 202, first.text
    job = first.json()["id"]
    assert client.post(f"/v1/jobs/{job}/cancel").status_code == 202
    return job


def replayed(client, body, key, job):
    again = sent(client, body, key)
    assert again.status_code == 202, again.text
    assert again.json()["id"] == job
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["location"] == f"/v1/jobs/{job}"


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "training", "model": "m"},
        {"kind": "evaluation", "models": ["small", "mixed"]},
        {**ROLLOUT, "model": "small"},
        SWEEP,
    ],
    ids=lambda body: body["kind"],
)
def test_a_job_is_found_by_its_key_when_its_dataset_is_gone(client, dataset, body):
    body = {**body, "dataset": dataset}
    key = f"gone-{body['kind']}"
    job = queued(client, body, key)
    assert client.delete(f"/v1/datasets/{dataset}").status_code == 204
    checked(sent(client, body, f"{key}-2"), 422, "dataset_not_found", "/dataset")
    replayed(client, body, key, job)
    other = {**body, "dataset": f"ds_{'0' * 26}"}
    checked(sent(client, other, key), 422, "idempotency_key_reused")


@pytest.mark.parametrize("passing", ["small"], indirect=True)
@pytest.mark.parametrize("is_file", [False, True], ids=["json", "npz"])
def test_a_rollout_job_is_found_by_its_key_when_its_alias_is_gone(
    client, passing, is_file
):
    def body(x0):
        if is_file:
            named = {name: ROLLOUT[name] for name in ("kind", "model")}
            times = np.array(ROLLOUT["times"])
            return npz(request=json.dumps(named), x0=np.array(x0), times=times)
        return {**ROLLOUT, "x0": x0}

    key = f"alias-{is_file}"
    job = queued(client, body(X0), key)
    etag = client.get(passing).headers["etag"]
    assert client.delete(passing, headers={"if-match": etag}).status_code == 204
    checked(sent(client, body(X0), f"{key}-2"), 404, "not_found")
    replayed(client, body(X0), key, job)
    other = body([[0.4, 1e-5, 0.6]])
    checked(sent(client, other, key), 422, "idempotency_key_reused")


@pytest.mark.parametrize("passing", ["forced"], indirect=True)
def test_a_calibration_is_found_by_its_key_when_its_alias_is_gone(client, passing):
    body = {**ASKED, "model": "forced@passing"}
    job = queued(client, body, "alias-calibration")
    etag = client.get(passing).headers["etag"]
    assert client.delete(passing, headers={"if-match": etag}).status_code == 204
    checked(sent(client, body, "alias-calibration-2"), 404, "not_found")
    replayed(client, body, "alias-calibration", job)


def test_a_check_of_a_request_is_no_submission(client, dataset):
    body = {"kind": "training", "model": "m", "dataset": dataset}
    job = queued(client, body, "checked")
    response = client.post(
        "/v1/jobs?validate_only=true", json=body, headers={"idempotency-key": "checked"}
    )
    assert response.status_code == 200, response.text
    assert response.json()["request"]["dataset"] == dataset
    replayed(client, body, "checked", job)
