"""What nobody sends by mistake is a problem too, and is kept nowhere."""

import base64
import io
import json
import zipfile

import numpy as np
import pytest

from tests.api.test_errors import JSON, NPZ, X0, checked

NESTED = "[" * 100_000


def packed(**members):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **members)
    return buffer.getvalue()


def cursor(text):
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/jobs"),
        ("POST", "/v1/datasets"),
        ("POST", "/v1/keys"),
        ("PUT", "/v1/models/small/aliases/trial"),
        ("PATCH", "/v1/models/small"),
    ],
)
@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (NESTED, 400, "malformed_json"),
        (b"\xff", 400, "malformed_json"),
        ("9" * 5000, 400, "malformed_json"),
        (r'{"tags": {"\ud800": ""}}', 400, "malformed_json"),
        (r'{"tags": {"a": "b\u0000"}}', 422, "invalid"),
        ("[" * 70 + "]" * 70, 422, "invalid"),
        (" " * (3 * 2**20) + "{}", 413, "too_large"),
    ],
)
def test_a_body_that_cannot_be_kept_is_refused(
    client, method, path, content, status, code
):
    response = client.request(method, path, content=content, headers=JSON)
    problem = checked(response, status, code)
    assert "error parsing" not in problem["detail"]
    assert client.get("/v1/models").status_code == 200
    assert client.get("/v1/jobs").status_code == 200


@pytest.mark.parametrize("tags", [{"a": "b" * 1001}, {"a" * 101: "b"}, {"": "b"}])
def test_tags_have_limits(client, tags):
    checked(client.patch("/v1/models/small", json={"tags": tags}), 422, "invalid")


@pytest.mark.parametrize("body", [{}, {"kind": "other"}])
def test_a_job_of_no_known_kind_names_the_field(client, body):
    checked(client.post("/v1/jobs", json=body), 422, "invalid", "/kind")


@pytest.mark.parametrize(
    "after",
    [
        cursor("[" * 20_000),
        cursor(f"[1, {10**30}]"),
        cursor("[1, 3.0]"),
        cursor("[1, true]"),
        cursor(r'[1, "\ud800"]'),
        cursor(r'[1, "\u0000"]'),
    ],
)
@pytest.mark.parametrize(
    "path", ["jobs", "datasets", "models", "models/small/versions"]
)
def test_a_forged_cursor_is_refused(client, path, after):
    response = client.get(f"/v1/{path}", params={"after": after})
    checked(response, 422, "invalid", "/after")


@pytest.mark.parametrize("version", ["0", "00", "01", "1" * 30])
def test_a_version_that_is_no_number_is_no_champion(client, version):
    path = f"/v1/models/small/versions/{version}"
    checked(client.get(path), 422, "invalid", "/version")
    body = {"model": f"small/{version}", "x0": X0, "times": [1.0]}
    checked(client.post("/v1/rollout", json=body), 422, "invalid", "/model")


def test_an_alias_of_a_huge_version_is_refused(client):
    path = "/v1/models/small/aliases/trial"
    response = client.put(path, json={"version": 10**30})
    checked(response, 422, "invalid", "/version")


@pytest.mark.parametrize("span", ["0-{}", "-{}", "{}-"])
def test_a_range_of_thousands_of_digits_means_all(client, span):
    path = "/v1/models/small/versions/1/artifact"
    headers = {"range": f"bytes={span.format('9' * 5000)}"}
    assert client.get(path, headers=headers).status_code == 200


def test_events_after_a_huge_id_are_refused(client):
    response = client.get("/v1/jobs/job_x/events", params={"after": 10**30})
    checked(response, 422, "invalid", "/after")


@pytest.mark.parametrize("path", ["datasets/%00", "models/%00", "jobs?kind=%00"])
def test_nul_in_an_address_is_refused(client, path):
    checked(client.get(f"/v1/{path}"), 400, "bad_request")


def test_a_million_wrong_numbers_are_one_error(client):
    content = json.dumps({"model": "small", "x0": ["a"] * 200_000, "times": [1.0]})
    response = client.post("/v1/rollout", content=content, headers=JSON)
    assert len(checked(response, 422, "invalid", "/x0/0")["errors"]) == 1


def test_json_is_no_upload(deployment, client):
    size = deployment.settings.max_body_bytes + 1
    response = client.post("/v1/datasets", content=b" " * size, headers=JSON)
    checked(response, 413, "too_large")


@pytest.mark.parametrize(
    "card", [r'{"a": "\ud800"}', '{"a": ' + "[" * 100 + "]" * 100 + "}"]
)
def test_a_card_that_no_answer_can_show_is_refused(client, tmp_path, card):
    content = client.get("/v1/models/small/versions/1/artifact").content
    path = tmp_path / "forged.zip"
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["card.json"] = card.encode()
    members["manifest.json"] = manifest_of(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    response = client.post(
        "/v1/models/forged/versions",
        content=path.read_bytes(),
        headers={"content-type": "application/zip"},
    )
    checked(response, 422, "invalid")
    assert client.get("/v1/models/forged").status_code == 404


def manifest_of(members):
    from services.identity import sha256

    manifest = json.loads(members["manifest.json"])
    manifest["sha256"] = {
        name: sha256(member)
        for name, member in members.items()
        if name != "manifest.json"
    }
    return json.dumps(manifest)


def test_text_in_npz_may_be_no_longer_than_json(client) -> None:
    """A few kilobytes that unpack to JSON of gigabytes of lists."""
    lists = b'{"kind": "rollout", "x": [' + b"[]," * 2**20 + b"[]]}"
    sent = packed(request=np.array(lists), x0=np.ones((1, 3)), times=np.ones(1))
    assert len(sent) < 20_000
    refused = client.post("/v1/jobs", content=sent, headers=NPZ)
    checked(refused, 413, "too_large")
    arrays = {"model": "small", "x0": np.ones(3), "times": np.ones(1)}
    for name in ("outputs", "sweep"):
        content = packed(**arrays, **{name: np.array(lists)})
        refused = client.post("/v1/rollout", content=content, headers=NPZ)
        place = checked(refused, 422, "invalid")["errors"][0]
        assert place["pointer"] == f"/{name}"
        assert f"text of {len(lists)} bytes" in place["detail"]
