"""What is sent again under its Idempotency-Key gets the first answer, done once."""

import json

import numpy as np
import pytest

from spnode_client import Client
from spnode_client.calls import Call, Lost
from spnode_client.transport import Transport
from spnode_core import artifact
from tests.api.deployment import MODELS
from tests.api.test_calibration import ASKED
from tests.api.test_errors import NPZ, checked, npz

TIMES, RATES = np.linspace(0.0, 1.0, 5), np.arange(1, 6)[:, None, None]
STATES = np.exp(-RATES * TIMES[:, None] * np.ones(3))
X0 = [[0.5, 1e-5, 0.5]]
ROLLOUT = {"kind": "rollout", "model": "small@passing", "times": [0.1, 1.0]}
MADE = {"kind": "dataset", "system": "robertson", "trajectories": 2}
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


def test_a_repetition_made_nothing_by_the_audit_log(client):
    body = {"kind": "dataset", "system": "transient_growth", "trajectories": 2}
    job = queued(client, body, "audited")
    replayed(client, body, "audited", job)
    acts = client.get("/v1/audit?limit=3").json()["data"]
    assert [act["made"] for act in acts] == [None, None, f"/v1/jobs/{job}"]


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


def test_a_file_sent_again_is_the_same_dataset(client):
    def upload(content, key, query=""):
        headers = {**NPZ, "idempotency-key": key}
        return client.post(f"/v1/datasets{query}", content=content, headers=headers)

    content = npz(states=STATES, times=TIMES)
    first = upload(content, "upload-1")
    again = upload(content, '"upload-1"')
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    other = npz(states=STATES[:3], times=TIMES)
    checked(upload(other, "upload-1"), 422, "idempotency_key_reused")
    checked(upload(content, "upload-1", "?name=x"), 422, "idempotency_key_reused")
    checked(upload(content, '""'), 422, "invalid", "/Idempotency-Key")
    assert client.delete(first.headers["location"]).status_code == 204
    checked(upload(content, "upload-1"), 410, "dataset_deleted")


def test_a_retry_sent_again_is_the_same_job(client):
    path = f"/v1/jobs/{queued(client, MADE, 'retried')}/retry"
    for _ in range(2):
        retried = client.post(path, headers={"idempotency-key": "retry-1"})
        assert retried.status_code == 202, retried.text
        assert retried.json()["state"] == "queued"
    another = client.post(path, headers={"idempotency-key": "retry-2"})
    checked(another, 409, "job_not_retriable")


class Losing(Transport):
    """The client's own transport; the first answer to each call is lost."""

    seen: tuple[Call, ...] = ()

    def _exchange(self, call):
        outcome = super()._exchange(call)
        is_first = call not in self.seen
        self.seen = (*self.seen, call)
        return Lost("lost on its way") if is_first else outcome


def test_a_client_that_loses_answers_does_nothing_twice(deployment, tmp_path):
    path = tmp_path / "mine.npz"
    path.write_bytes(npz(states=STATES, times=TIMES))
    with Client(deployment.url, deployment.key, retries=1) as client:
        client.transport.http.close()
        client.transport = Losing(deployment.url, deployment.key, 60.0)
        made = client.datasets.upload(path, "lost and found")
        found = [each.record for each in client.datasets.list()]
        assert [each["id"] for each in found if each["name"] == "lost and found"] == [
            made.id
        ]
        job = client.jobs.submit(MADE)
        client.jobs.cancel(job.id)
        assert client.jobs.retry(job.id).state == "queued"
        client.jobs.cancel(job.id)
        states = [each.data["data"].get("state") for each in client.jobs.events(job.id)]
    assert states == ["queued", "cancelled", "queued", "cancelled"]


def test_an_artifact_is_registered_once_under_its_key(client, tmp_path):
    path = tmp_path / "mine.spnode"
    artifact.save(MODELS["small"](), path, card={"seed": 7})
    content = path.read_bytes()

    def register(name, content, key):
        headers = {"content-type": "application/zip", "idempotency-key": key}
        path = f"/v1/models/{name}/versions"
        return client.post(path, content=content, headers=headers)

    first, again = (register("once", content, "register-1") for _ in range(2))
    assert first.status_code == again.status_code == 201, again.text
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["location"] == "/v1/models/once/versions/1"
    assert again.json() == first.json()
    second = register("once", content, "register-2")
    assert second.json()["number"] == 2
    reused = register("twice", content, "register-1")
    checked(reused, 422, "idempotency_key_reused", "/Idempotency-Key")
    assert client.delete("/v1/models/once/versions/1").status_code == 204
    checked(register("once", content, "register-1"), 410, "version_deleted")
