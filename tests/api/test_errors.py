"""Whatever is wrong with a request is a problem that says so, and leaves nothing."""

import gzip
import io
import json
import socket

import numpy as np
import psutil
import pytest

from api.errors import STATUS, problem_of, status_of
from services.errors import Unavailable, subclasses

NPZ = {"content-type": "application/x-npz"}
JSON = {"content-type": "application/json"}
X0 = [0.5, 1e-5, 0.5]


def npz(**members):
    buffer = io.BytesIO()
    np.savez(buffer, **members)
    return buffer.getvalue()


def trajectories(count=4, times=5):
    states = np.random.default_rng(0).uniform(0.1, 1.0, (count, times, 2))
    return {"states": states, "times": np.linspace(0.0, 1.0, times)}


def with_nan():
    arrays = trajectories()
    arrays["states"][2, 3, 1] = np.nan
    return arrays


def checked(response, status, code, pointer=None):
    """The problem, in the form that every one has."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["code"] == code
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == response.headers["x-request-id"]
    if pointer is not None:
        assert pointer in [each["pointer"] for each in problem["errors"]]
        assert all(each["detail"] for each in problem["errors"])
    return problem


def text(**fields):
    return json.dumps({"model": "small", "x0": X0, "times": [1.0], **fields})


@pytest.mark.parametrize(
    ("content", "status", "code", "pointer"),
    [
        (text(x0=[1.0]), 422, "invalid", "/x0"),
        (text(x0=[X0, [1.0]]), 422, "invalid", "/x0/1"),
        (text(x0=[1.0, "a", 0.0]), 422, "invalid", "/x0/1"),
        (text(x0=[[1.0, None, 0.0]]), 422, "invalid", "/x0/0/1"),
        (text(x0=[1.0, float("nan"), 0.0]), 422, "invalid", "/x0/1"),
        (text(times=[-1.0]), 422, "invalid", "/times/0"),
        (text(times=[2.0, 1.0]), 422, "invalid", "/times/1"),
        (text(times={"dt": -0.1, "steps": 3}), 422, "invalid", "/times/dt"),
        (text(times={"dt": 0.1, "steps": 10**9}), 422, "invalid", "/times/steps"),
        (text(times={"stop": 1.0}), 422, "invalid", "/times/count"),
        (text(x1=3), 422, "invalid", "/x1"),
        (text(outputs={"states": ["q"]}), 422, "invalid", "/outputs/states/0"),
        (text(outputs={"time": "all"}), 422, "invalid", "/outputs/time"),
        (text(model="nobody"), 404, "not_found", None),
        (text(model="small/9"), 404, "not_found", None),
        (text(model="small@nobody"), 404, "not_found", None),
        (text(model="../etc"), 422, "invalid", "/model"),
        (text(parameters=[1.0]), 422, "invalid", "/parameters"),
        ("{", 400, "malformed_json", None),
        ("", 400, "malformed_json", None),
        ("[]", 422, "invalid", None),
        (b'{"model": "\xff"}', 400, "malformed_json", None),
    ],
)
def test_a_wrong_rollout_names_the_place(client, content, status, code, pointer):
    response = client.post("/v1/rollout", content=content, headers=JSON)
    checked(response, status, code, pointer)


@pytest.mark.parametrize(
    ("content", "pointer"),
    [
        (npz(model="small", x0=np.array([{}] * 3), times=np.ones(1)), "/x0"),
        (npz(model="small", x0=np.array(X0), times=np.array([-1.0])), "/times/0"),
        (npz(model="small", x0=np.array(X0), times=np.ones(1))[:-40], "/body"),
        (npz(model="small", x0=np.full(3, np.nan), times=np.ones(1)), "/x0/0"),
        (b"PK", "/body"),
    ],
)
def test_a_wrong_npz_rollout_names_the_member(client, content, pointer):
    response = client.post("/v1/rollout", content=content, headers=NPZ)
    checked(response, 422, "invalid", pointer)


@pytest.mark.parametrize(
    ("content", "pointer"),
    [
        (npz(**trajectories(count=0)), "/states"),
        (npz(**with_nan()), "/states/2/3/1"),
        (npz(states=np.ones((3, 4, 2)), times=np.array([0.0, 2.0, 1.0, 3.0])), None),
        (npz(states=np.ones((3, 4)), times=np.arange(4.0)), "/states"),
        (npz(states=np.ones((3, 4, 2))), "/times"),
        (npz(**trajectories(), extra=np.ones(2)), None),
        (npz(states=np.array([{}]), times=np.arange(4.0)), "/states"),
        (npz(**trajectories())[:-50], None),
        (b"", None),
        (b"not a zip", None),
    ],
)
def test_a_wrong_dataset_leaves_nothing_behind(deployment, client, content, pointer):
    before = contents(deployment, client)
    response = client.post("/v1/datasets", content=content, headers=NPZ)
    problem = checked(response, 422, "invalid_dataset", pointer)
    assert "expected" in problem["detail"]
    assert contents(deployment, client) == before


def test_an_upload_to_a_full_disk_is_put_off_and_kept_later(deployment, client):
    gateway = psutil.Process(deployment.processes["gateway"].pid)
    before = contents(deployment, client)
    content = npz(**trajectories(), noise=np.random.default_rng(0).normal(size=2000))
    usual = gateway.rlimit(psutil.RLIMIT_FSIZE)
    gateway.rlimit(psutil.RLIMIT_FSIZE, (1024, usual[1]))
    try:
        response = client.post("/v1/datasets", content=content, headers=NPZ)
    finally:
        gateway.rlimit(psutil.RLIMIT_FSIZE, usual)
    problem = checked(response, 503, "unavailable")
    assert "no room" in problem["detail"]
    assert float(response.headers["retry-after"]) > 0
    assert contents(deployment, client) == before


def contents(deployment, client):
    """What the store, the folder for work, and the list of datasets hold."""
    data = deployment.settings.data_folder
    files = {
        path
        for folder in ("store", "work")
        for path in (data / folder).rglob("*")
        if path.is_file()
    }
    return files, client.get("/v1/datasets").json()["data"]


def test_an_oversized_body_is_refused_by_its_length(client):
    response = client.post("/v1/rollout", content=b" " * (5 * 2**20), headers=JSON)
    checked(response, 413, "too_large")


@pytest.mark.parametrize("path", ["/v1/rollout", "/v1/jobs", "/v1/datasets"])
def test_an_oversized_body_in_chunks_is_refused(client, path):
    def chunks():
        for _ in range(10):
            yield b" " * 2**20

    kind = NPZ if path == "/v1/datasets" else JSON
    response = client.post(path, content=chunks(), headers=kind)
    checked(response, 413, "too_large")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/v1/jobs/job_x", 404, "not_found"),
        ("GET", "/v1/datasets/ds_x", 404, "not_found"),
        ("GET", "/v1/models/nobody", 404, "not_found"),
        ("PUT", "/v1/jobs", 405, "method_not_allowed"),
        ("GET", "/v1/rollout", 405, "method_not_allowed"),
        ("GET", "/v1/jobs?limit=0", 422, "invalid"),
        ("GET", "/v1/jobs?limit=many", 422, "invalid"),
        ("GET", "/v1/jobs?after=zzz", 422, "invalid"),
        ("GET", "/v1/jobs?state=lost", 422, "invalid"),
    ],
)
def test_the_framework_answers_with_problems_too(client, method, path, status, code):
    checked(client.request(method, path), status, code)


def test_a_wrong_method_is_told_every_right_one(client):
    answer = client.put("/v1/models/small")
    checked(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD, PATCH"


@pytest.mark.parametrize("path", ["/v1/rollout", "/v1/jobs", "/v1/datasets"])
def test_a_body_of_another_type_is_refused(client, path):
    response = client.post(path, content="a=1", headers={"content-type": "text/html"})
    problem = checked(response, 415, "unsupported_media_type")
    assert "application/" in problem["detail"]


@pytest.mark.parametrize(
    "path", ["/v1/rollout", "/rollout", "/v1/jobs", "/v1/datasets", "/v1/keys"]
)
def test_a_compressed_body_is_refused_where_none_is_unpacked(client, path):
    for coding, content in (("gzip", gzip.compress(b"{}")), ("GZip", b"{}")):
        headers = {**JSON, "content-encoding": coding}
        problem = checked(
            client.post(path, content=content, headers=headers),
            415,
            "unsupported_media_type",
        )
        assert f"found Content-Encoding {coding!r}" in problem["detail"]
    for coding in ("identity", "Identity", ""):
        headers = {**JSON, "content-encoding": coding}
        answer = client.post(path, content=b"{}", headers=headers)
        assert "Content-Encoding" not in answer.text


def test_an_answer_of_another_type_is_refused(client):
    response = client.post(
        "/v1/rollout", content=text(), headers={**JSON, "accept": "text/csv"}
    )
    checked(response, 406, "not_acceptable")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"kind": "training", "model": "m"}, "/dataset"),
        ({"kind": "training", "dataset": "ds_1", "model": "m"}, "/dataset"),
        ({"kind": "training", "dataset": "ds_" + "0" * 26, "model": "m"}, "/dataset"),
        ({"kind": "dataset", "system": "lorenz", "trajectories": 3}, "/system"),
        (
            {"kind": "dataset", "system": "robertson", "trajectories": 1},
            "/trajectories",
        ),
        (
            {
                "kind": "training",
                "dataset": "ds_" + "0" * 26,
                "model": "m",
                "training": {"iterations": -1},
            },
            "/training/iterations",
        ),
        (
            {
                "kind": "training",
                "dataset": "ds_" + "0" * 26,
                "model": "m",
                "surrogate": {"linear": {"kind": "modal", "shft": 1}},
            },
            "/surrogate/linear/shft",
        ),
        (
            {
                "kind": "training",
                "dataset": "ds_" + "0" * 26,
                "model": "m",
                "surrogate": {"integrator": "krogstad"},
            },
            "/surrogate",
        ),
        ({"kind": "dance"}, "/kind"),
        ({}, "/kind"),
    ],
)
def test_a_wrong_job_names_the_place_and_queues_nothing(client, body, pointer):
    before = client.get("/v1/jobs").json()
    response = client.post("/v1/jobs", json=body)
    problem = checked(response, 422, response.json()["code"], pointer)
    assert problem["code"] in ("invalid", "dataset_not_found")
    assert client.get("/v1/jobs").json() == before


def test_nan_in_the_json_of_a_job_is_refused(client):
    content = '{"kind": "dataset", "system": "robertson", "trajectories": NaN}'
    response = client.post("/v1/jobs", content=content, headers=JSON)
    checked(response, 422, "invalid", "/trajectories")


def test_a_request_id_is_kept_or_made(client):
    kept = client.get("/v1/limits", headers={"x-request-id": "abc-1"})
    assert kept.headers["x-request-id"] == "abc-1"
    made = client.get("/v1/limits", headers={"x-request-id": "a b\tc" * 99})
    assert made.headers["x-request-id"].startswith("req_")
    # Where no collector is set nothing is made of it.
    assert "traceparent" not in made.headers
    sent = {"traceparent": f"00-{1:032x}-{2:016x}-01"}
    kept = client.get("/v1/limits", headers=sent)
    assert kept.headers["traceparent"] == sent["traceparent"]


@pytest.mark.parametrize(
    "given",
    [
        b"\xff<script>",
        b"",
        f"00-{1:032x}-{2:016x}-01x".encode(),
        f"00-{1:032x}-{2:016x}".encode(),
        f"00-{0:032x}-{2:016x}-01".encode(),
        f"00-{1:032x}-{0:016x}-01".encode(),
        f"ff-{1:032x}-{2:016x}-01".encode(),
    ],
)
def test_what_is_no_traceparent_is_not_echoed(client, given):
    answer = client.get("/v1/limits", headers={"traceparent": given})
    assert answer.status_code == 200
    assert "traceparent" not in answer.headers


def test_a_request_id_has_letters_of_ascii_alone(client):
    made = client.get("/v1/limits", headers={b"x-request-id": b"caf\xe9"})
    assert made.headers["x-request-id"].startswith("req_")


def test_a_broken_request_line_does_not_hurt(deployment, client):
    host, port = deployment.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"\x00\x01garbage\r\n\r\n")
        assert b"400" in connection.recv(1000)
    assert client.get("/health/live").status_code == 200


def test_every_error_of_the_services_has_a_status():
    for kind in subclasses():
        assert kind in STATUS, kind
        assert 400 <= status_of(kind) < 600


def test_why_something_is_away_is_for_the_log_alone(caplog) -> None:
    error = Unavailable("the database does not answer", reason="user me at 10.0.0.7")
    problem = problem_of(error, {"method": "GET", "path": "/v1/models"})
    assert problem.status == 503
    assert problem.detail == "the database does not answer"
    assert "10.0.0.7" in caplog.text
