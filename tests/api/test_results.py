"""Rollout jobs over HTTP: what is refused, what comes back, chunk by chunk."""

import io
import json

import numpy as np
import pytest

from tests.api.deployment import deployed, ensemble, opened, publish
from tests.api.test_errors import NPZ, checked, npz
from tests.core.models import random_states

TIMES = [0.1, 1.0, 10.0, 100.0]
# 4 times and 3 states are 96 bytes a row: 640 rows fit, and 512 are whole tiles.
LIMITS = {
    "result_chunk_bytes": 80 * 1024,
    "max_job_rows": 20_000,
    "max_result_bytes": 1_500_000,
}
ROWS = random_states(1300)
X0 = [0.5, 1e-5, 0.5]


@pytest.fixture(scope="module")
def data():
    """A gateway and a worker whose chunks are small."""
    with deployed(models=("small", "forced"), **LIMITS) as deployment:
        gateway = deployment.start_gateway()
        gateway.start("worker", "worker")
        yield gateway


@pytest.fixture(scope="module")
def client(data):
    with data.client() as client:
        yield client


@pytest.fixture(scope="module")
def made(client):
    """A job of 1300 rows that has succeeded."""
    body = {"kind": "rollout", "model": "small", "x0": ROWS.tolist(), "times": TIMES}
    return ended(client, client.post("/v1/jobs", json=body))


def ended(client, response):
    assert response.status_code == 202, response.text
    job = response.json()
    for _ in range(4):
        job = client.get(f"/v1/jobs/{job['id']}?wait=50").json()
        if job["state"] not in ("queued", "running"):
            break
    assert job["state"] == "succeeded", job
    return job


def loaded(content):
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def chunks_of(client, job):
    index = client.get(f"/v1/jobs/{job['id']}/result").json()
    for chunk in index["chunks"]:
        response = client.get(f"/v1/jobs/{job['id']}/result/{chunk['number']}")
        assert response.headers["etag"] == f'"{chunk["digest"]}"'
        assert len(response.content) == chunk["size_bytes"]
        yield loaded(response.content)


def whole(client, job, name="x"):
    return np.concatenate([chunk[name] for chunk in chunks_of(client, job)])


def test_the_index_says_what_the_chunks_are_together(client, made):
    response = client.get(f"/v1/jobs/{made['id']}/result")
    index = response.json()
    assert index["shape"] == [1300, 4, 3]
    assert [chunk["rows"] for chunk in index["chunks"]] == [512, 512, 276]
    assert [chunk["start"] for chunk in index["chunks"]] == [0, 512, 1024]
    assert (index["model"], index["version"]) == ("small", 1)
    assert (index["states"], index["times"]) == (["a", "b", "c"], TIMES)
    assert index["failed"] == 0
    assert index["expires_at"] > made["finished_at"]
    assert made["result"]["rows"] == 1300
    assert made["progress"]["rows"] == 1300
    assert made["progress"]["rows_per_second"] > 0
    assert all(
        chunk["size_bytes"] < LIMITS["result_chunk_bytes"] for chunk in index["chunks"]
    )
    assert "x0" not in made["request"], "a list of jobs would show a million numbers"
    assert made["request"]["arrays"] == {"x0": [1300, 3], "times": [4]}
    etag = {"if-none-match": response.headers["etag"]}
    assert client.get(f"/v1/jobs/{made['id']}/result", headers=etag).status_code == 304


def test_chunks_hold_the_bits_of_ordinary_rollouts(client, made):
    body = {"model": "small", "x0": ROWS[500:600].tolist(), "times": TIMES}
    expected = np.array(client.post("/v1/rollout", json=body).json()["x"])
    np.testing.assert_array_equal(whole(client, made)[500:600], expected)


def test_chunks_of_an_ensemble_hold_its_spread_where_asked_for(client, data):
    several = ensemble()
    with opened(data.settings) as (database, blobs):
        publish(database, blobs, "several", several, certificate={})
    body = {"kind": "rollout", "model": "several/1", "times": TIMES, "spread": True}
    made = ended(client, client.post("/v1/jobs", json=body | {"x0": X0}))
    assert client.get(f"/v1/jobs/{made['id']}/result").json()["spread"]
    expected = several.rollout_spread(np.array([X0]), TIMES)
    np.testing.assert_allclose(
        whole(client, made, "spread"), expected, rtol=1e-8, atol=1e-12
    )


def test_a_chunk_is_fetched_by_range_and_not_twice(client, made):
    path = f"/v1/jobs/{made['id']}/result/2"
    full = client.get(path)
    assert full.headers["content-type"] == "application/x-npz"
    assert int(loaded(full.content)["start"]) == 1024
    part = client.get(path, headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, full.content[10:20])
    size = len(full.content)
    assert part.headers["content-range"] == f"bytes 10-19/{size}"
    same = client.get(path, headers={"if-none-match": full.headers["etag"]})
    assert same.status_code == 304
    beyond = client.get(path, headers={"range": f"bytes={size}-"})
    checked(beyond, 416, "range_not_satisfiable")
    checked(client.get(f"/v1/jobs/{made['id']}/result/3"), 404, "not_found")
    checked(client.get(f"/v1/jobs/{made['id']}/result/-1"), 422, "invalid", "/number")


def test_arrays_come_as_npz_and_the_rest_as_json_in_it(client, made):
    request = {"kind": "rollout", "model": "small", "outputs": {"times": "final"}}
    content = npz(x0=ROWS[:700], times=np.array(TIMES), request=json.dumps(request))
    job = ended(client, client.post("/jobs", content=content, headers=NPZ))
    index = client.get(f"/v1/jobs/{job['id']}/result").json()
    assert index["shape"] == [700, 3]
    x = whole(client, job)
    np.testing.assert_array_equal(x, whole(client, made)[:700, -1])


def test_a_dataset_gives_the_rows(client, made):
    states = np.stack([ROWS[:40], ROWS[:40]], axis=1)
    content = npz(
        # In another order than the model's, which is a, b, c.
        states=states[:, :, [2, 0, 1]],
        times=np.array([3.0, 4.0]),
        names=np.array(["c", "a", "b"]),
    )
    dataset = client.post("/v1/datasets", content=content, headers=NPZ).json()["id"]
    body = {"kind": "rollout", "model": "small@champion", "dataset": dataset}
    times = {"dt": 0.1, "steps": 3}
    response = client.post("/v1/jobs", json={**body, "times": times})
    held = client.delete(f"/v1/datasets/{dataset}")
    job = ended(client, response)
    if held.status_code != 204:
        checked(held, 409, "dataset_in_use")
    expected = client.post(
        "/v1/rollout", json={"model": "small", "x0": ROWS[:40].tolist(), "times": times}
    ).json()
    x = whole(client, job)
    np.testing.assert_array_equal(x, expected["x"])


def test_controls_and_parameters_are_shared_or_by_row(client):
    rows = 5
    body = {
        "model": "forced",
        "times": TIMES,
        "x0": X0,
        "parameters": [[0.5 + 0.1 * row] for row in range(rows)],
        "controls": [[0.5, -0.5], [0.0, 0.2]],
        "control_times": [0.0, 5.0],
        "outputs": {"states": ["c", "a"], "latent": True},
    }
    job = ended(client, client.post("/v1/jobs", json={"kind": "rollout", **body}))
    expected = client.post("/v1/rollout", json=body).json()
    np.testing.assert_array_equal(whole(client, job), expected["x"])
    np.testing.assert_array_equal(whole(client, job, "z"), expected["z"])
    index = client.get(f"/v1/jobs/{job['id']}/result").json()
    assert index["states"] == ["c", "a"]
    assert index["latent"] == np.shape(expected["z"])[-1]


def test_a_row_that_leaves_the_finite_range_fails_the_job_or_is_named(client):
    x0 = np.repeat([X0], 900, axis=0)
    x0[700] = 1e308
    body = {"kind": "rollout", "model": "small", "x0": x0.tolist(), "times": TIMES}
    response = client.post("/v1/jobs", json=body)
    job = client.get(f"/v1/jobs/{response.json()['id']}?wait=60").json()
    assert job["state"] == "failed"
    assert job["error"]["code"] == "rollout_failed"
    assert "row 700 is not finite" in job["error"]["detail"]
    checked(client.get(f"/v1/jobs/{job['id']}/result"), 409, "result_not_ready")

    job = ended(client, client.post("/v1/jobs", json={**body, "on_error": "mask"}))
    assert job["result"]["failed"] == 1
    first, second = chunks_of(client, job)
    assert (first["failed"].tolist(), second["failed"].tolist()) == ([], [700])
    assert second["failed_times"].tolist() == [0.1]
    assert np.isfinite(np.delete(second["x"], 700 - 512, axis=0)).all()
    assert not second["inside"][700 - 512]


def test_a_sweep_is_one_request_or_one_job(client):
    body = {
        "model": "forced",
        "x0": X0,
        "times": TIMES,
        "controls": [[0.5, -0.5]],
        "sweep": {
            "parameters": {
                "p0": {"start": 0.5, "stop": 2.0, "count": 30, "spacing": "log"}
            },
            "x0": {"a": {"start": 0.1, "stop": 0.9, "count": 20}},
        },
    }
    answer = client.post("/v1/rollout", json=body).json()
    x = np.array(answer["x"])
    assert x.shape == (600, 4, 3)
    assert answer["sweep"]["shape"] == [30, 20]
    first, second = answer["sweep"]["axes"]
    assert (first["field"], first["name"]) == ("parameters", "p0")
    plain = {**body, "x0": [second["values"][3], *X0[1:]]}
    plain |= {"parameters": [first["values"][7]]}
    del plain["sweep"]
    alone = client.post("/v1/rollout", json=plain).json()["x"]
    np.testing.assert_array_equal(x.reshape(30, 20, 4, 3)[7, 3], alone)

    job = ended(client, client.post("/v1/jobs", json={"kind": "rollout", **body}))
    index = client.get(f"/v1/jobs/{job['id']}/result").json()
    assert index["sweep"] == answer["sweep"]
    assert len(index["chunks"]) == 2
    np.testing.assert_array_equal(whole(client, job), x)

    wrong = {**body, "sweep": {"x0": {"q": [1.0]}}}
    checked(client.post("/v1/rollout", json=wrong), 422, "invalid", "/sweep/x0/q")
    wrong = {**body, "kind": "rollout", "sweep": {"x0": {"a": {"start": 0}}}}
    response = client.post("/v1/jobs", json=wrong)
    checked(response, 422, "invalid", "/sweep/x0/a/stop")


def rollout(**fields):
    body = {"kind": "rollout", "model": "small", "x0": X0, "times": TIMES, **fields}
    return {name: value for name, value in body.items() if value is not None}


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"x0": [1.0, 2.0]}, "/x0"),
        ({"x0": [X0, [1.0]]}, "/x0/1"),
        ({"x0": [X0, [1.0, "a", 2.0]]}, "/x0/1/1"),
        ({"x0": None}, "/x0"),
        ({"x0": []}, "/x0"),
        ({"times": None}, "/times"),
        ({"times": [2.0, 1.0]}, "/times/1"),
        ({"times": {"start": 0, "stop": 1, "count": 0}}, "/times/count"),
        ({"parameters": [1.0]}, "/parameters"),
        ({"outputs": {"states": ["q"]}}, "/outputs/states/0"),
        ({"model": "forced"}, "/parameters"),
        ({"dataset": "ds_nobody"}, "/dataset"),
        ({"on_error": "ignore"}, "/on_error"),
        ({"chunk_rows": 7}, "/chunk_rows"),
        ({"times": {"dt": 1.0, "steps": 900_000}}, "/times/steps"),
        # One row of it does not fit into a chunk.
        ({"times": {"dt": 1.0, "steps": 5000}}, "/x0"),
        # 1.2 MB a row: more than the result may have.
        ({"x0": [X0] * 700, "times": {"dt": 1.0, "steps": 99}}, "/x0"),
    ],
)
def test_what_is_wrong_is_named_before_a_job_is_queued(client, fields, pointer):
    body = rollout(**fields)
    for query in ("", "?validate_only=true"):
        response = client.post(f"/v1/jobs{query}", json=body)
        problem = checked(response, 422, response.json()["code"], pointer)
        assert "found" in problem["errors"][0]["detail"]


def test_what_is_wrong_in_a_file_is_named(client):
    request = json.dumps(rollout(x0=None, times=None))

    def refused(pointer, **arrays):
        response = client.post("/v1/jobs", content=npz(**arrays), headers=NPZ)
        return checked(response, 422, "invalid", pointer)

    times = np.array(TIMES)
    bad = ROWS[:900].copy()
    bad[801, 2] = np.nan
    refused("/x0/801/2", x0=bad, times=times, request=request)
    refused("/request", x0=ROWS, times=times)
    refused("/x0", x0=np.asfortranarray(ROWS), times=times, request=request)
    refused("/x0", x0=np.zeros((2, 2, 2)), times=times, request=request)
    refused("/x0", x0=np.array(["a"]), times=times, request=request)
    refused("/x0", x0=np.zeros((20_001, 3)), times=times, request=request)
    problem = refused("/states", states=ROWS, times=times, request=request)
    assert problem["detail"].startswith("states: found an unknown array; expected one")
    again = json.dumps(rollout(x0=None))
    refused("/times", x0=ROWS, times=times, request=again)
    other = json.dumps({"kind": "dataset", "system": "robertson", "trajectories": 2})
    refused("/kind", x0=ROWS, request=other)
    response = client.post("/v1/jobs", content=b"PK", headers=NPZ)
    checked(response, 422, "invalid")
    text = {"content-type": "text/plain"}
    response = client.post("/v1/jobs", content=b"{}", headers=text)
    checked(response, 415, "unsupported_media_type")


def test_validate_only_says_how_the_rows_would_be_cut(client):
    body = rollout(x0=ROWS.tolist())
    response = client.post("/v1/jobs?validate_only=true", json=body)
    assert response.status_code == 200, response.text
    request = response.json()["request"]
    assert (request["rows"], request["chunk_rows"]) == (1300, 512)
    assert request["version"] == 1


def test_an_idempotency_key_returns_the_first_rollout_job(client, data):
    headers = {"idempotency-key": "rollout-1"}
    first = client.post("/v1/jobs", json=rollout(), headers=headers)
    again = client.post("/v1/jobs", json=rollout(), headers=headers)
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["idempotency-replayed"] == "true"
    other = client.post("/v1/jobs", json=rollout(x0=[0, 0, 1.0]), headers=headers)
    checked(other, 422, "idempotency_key_reused")
    stored = data.settings.data_folder / "store" / "results"
    known = {job["id"] for job in client.get("/v1/jobs?limit=100").json()["data"]}
    kept = {path.name for path in stored.iterdir() if any(path.rglob("*/*"))}
    assert kept <= known, "inputs of what was not queued are gone"


def test_a_result_is_deleted_on_request(client, data):
    job = ended(client, client.post("/v1/jobs", json=rollout()))
    path = f"/v1/jobs/{job['id']}/result"
    folder = data.settings.data_folder / "store" / "results" / job["id"]
    assert list(folder.rglob("*/*"))
    reader = data.new_key("read")
    with data.client(reader) as other:
        checked(other.delete(path), 403, "forbidden")
        assert other.get(path).status_code == 200
    assert client.delete(path).status_code == 204
    checked(client.get(path), 410, "result_dropped")
    checked(client.get(f"{path}/0"), 410, "result_dropped")
    assert not [each for each in folder.rglob("*") if each.is_file()]
    assert client.get(f"/v1/jobs/{job['id']}").json()["state"] == "succeeded"


def test_other_kinds_have_no_such_result(client):
    body = {"kind": "dataset", "system": "robertson", "trajectories": 2}
    job = client.post("/v1/jobs", json=body).json()["id"]
    checked(client.get(f"/v1/jobs/{job}/result"), 404, "not_found")
    checked(client.delete(f"/v1/jobs/{job}/result"), 404, "not_found")
    checked(client.get("/v1/jobs/job_nobody/result"), 404, "not_found")


def test_the_limits_are_stated(client):
    limits = client.get("/v1/limits").json()
    assert {name: limits[name] for name in LIMITS} == LIMITS
    assert limits["result_keep_seconds"] == 7 * 24 * 3600
