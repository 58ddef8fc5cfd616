"""SQL and strange Unicode are text: refused, or kept as it is, and never anything else."""

import base64
import json
from urllib.parse import quote

import pytest

from tests.api.test_errors import JSON, NPZ, X0, checked, npz, trajectories

SQL = [
    "x' OR '1'='1",
    "'; DROP TABLE jobs; --",
    '" OR 1=1 --',
    "1 UNION SELECT * FROM api_keys",
    "%",
    "_",
    "\\' OR 1=1 #",
    "small'||'",
    ":name {0} %s %(id)s ?1",
]
# Each looks like `small`, or becomes it by some normalisation.
LOOKALIKES = [
    "\u0455mall",
    "ｓｍａｌｌ",
    "small\u200b",
    "\u202esmall",
    "sma\u0301ll",
    "ſmall",
    "SMALL",
    "small ",
    "small\n",
    "\ufeffsmall",
    "small\U000e0041",
]
DIGITS = ["²", "１", "\u0661", "1\u0301", "1\u200b", "\u202e1"]
LABELS = [
    *SQL,
    "\u202egnp.live\u202c",
    "e\u0301 and é",
    "\U0001f469\u200d\U0001f52c",
    "\ufffe\uffff\U0010ffff\ue000",
    "\ufeff\u200b\u2066x\u2069",
    "\x1b[31mred\x07\x7f\x85",
    "İıſK",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629",
    "𝔘" * 200,
]
DATASET = {"kind": "dataset", "system": "robertson", "trajectories": 3}


@pytest.fixture(scope="module")
def kept(client):
    """Something in every table, so that a condition that is always true finds it."""
    job = client.post("/v1/jobs", json=DATASET).json()
    dataset = client.post("/v1/datasets", content=npz(**trajectories()), headers=NPZ)
    assert dataset.status_code == 201
    assert client.post("/v1/keys", json={"name": "kept", "scopes": ["read"]}).is_success
    yield [job["id"], dataset.json()["id"]]
    client.post(f"/v1/jobs/{job['id']}/cancel")


@pytest.fixture(autouse=True)
def untouched(client, kept):
    """Whatever was sent, what was there is there."""
    yield
    for path in (*(f"jobs/{kept[0]}", f"datasets/{kept[1]}"), "models/small", "keys"):
        assert client.get(f"/v1/{path}").status_code == 200, path
    rollout = {"model": "small", "x0": X0, "times": [1.0]}
    assert client.post("/v1/rollout", json=rollout).status_code == 200


def cursor(*parts):
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


@pytest.mark.parametrize("text", [*SQL, *LOOKALIKES])
def test_a_name_that_is_none_finds_nothing(client, text):
    name = quote(text, safe="")
    for path in (
        f"models/{name}",
        f"models/{name}/versions/1",
        f"models/small/aliases/{name}",
        f"jobs/{name}",
        f"jobs/{name}/events",
        f"datasets/{name}",
        f"datasets/{name}/data",
    ):
        response = client.get(f"/v1/{path}")
        assert response.status_code in (404, 422), (path, response.text)
        checked(response, response.status_code, response.json()["code"])
    for path in (f"keys/{name}", f"datasets/{name}", f"models/small/aliases/{name}"):
        response = client.delete(f"/v1/{path}")
        assert response.status_code in (404, 428), (path, response.text)


@pytest.mark.parametrize("text", [*SQL, *LOOKALIKES, "a" * 65, ""])
def test_a_name_that_is_none_is_not_taken(client, text):
    name = quote(text, safe="")
    if text:
        alias = client.put(f"/v1/models/small/aliases/{name}", json={"version": 1})
        checked(alias, 422, "invalid", "/alias")
        version = client.post(f"/v1/models/{name}/versions", content=b"PK")
        checked(version, 422, "invalid", "/name")
    training = {"kind": "training", "dataset": "ds_" + "0" * 26}
    for field in ("model", "alias"):
        body = {**training, "model": "new", field: text}
        response = client.post("/v1/jobs", json=body)
        checked(response, 422, response.json()["code"], f"/{field}")
    rollout = {"model": text, "x0": X0, "times": [1.0]}
    checked(client.post("/v1/rollout", json=rollout), 422, "invalid", "/model")
    key = {"name": "k", "scopes": ["read"]}
    for change in ({"project": text}, {"scopes": [text]}):
        checked(client.post("/v1/keys", json={**key, **change}), 422, "invalid")


@pytest.mark.parametrize("text", DIGITS)
def test_digits_of_other_scripts_are_no_version(client, text):
    path = f"/v1/models/small/versions/{quote(text)}"
    checked(client.get(path), 422, "invalid", "/version")
    body = {"model": f"small/{text}", "x0": X0, "times": [1.0]}
    checked(client.post("/v1/rollout", json=body), 422, "invalid", "/model")
    span = {"range": b"bytes=0-" + text.encode()}
    artifact = "/v1/models/small/versions/1/artifact"
    assert client.get(artifact, headers=span).status_code == 200
    events = {"last-event-id": text.encode()}
    response = client.get("/v1/jobs/job_x/events", headers=events)
    checked(response, 422, "invalid", "/Last-Event-ID")


@pytest.mark.parametrize("text", SQL)
def test_sql_in_a_query_matches_nothing(client, text):
    assert client.get("/v1/jobs", params={"parent": text}).json()["data"] == []
    for name in ("kind", "state", "limit", "after"):
        response = client.get("/v1/jobs", params={name: text})
        checked(response, 422, "invalid", f"/{name}")
    for path in ("jobs", "datasets", "models"):
        # Nothing is older than 1970.
        response = client.get(f"/v1/{path}", params={"after": cursor(1.0, text)})
        assert response.json() == {"data": [], "next": None}
    for path in ("jobs", "datasets", "models", "models/small/versions", "audit"):
        response = client.get(f"/v1/{path}", params={"after": cursor(text, 1)})
        checked(response, 422, "invalid", "/after")
    response = client.get("/v1/audit", params={"after": cursor(1.0, text)})
    checked(response, 422, "invalid", "/after")


def test_texts_are_kept_as_they_are(client):
    for text in LABELS:
        patch = {"description": text, "tags": {text[:100]: text}}
        assert client.patch("/v1/models/small", json=patch).status_code == 200
        model = client.get("/v1/models/small").json()
        assert {name: model[name] for name in patch} == patch
        made = client.post("/v1/keys", json={"name": text, "scopes": ["read"]}).json()
        assert made["name"] == text
        keys = {key["id"]: key["name"] for key in client.get("/v1/keys").json()["data"]}
        assert keys[made["id"]] == text
        assert client.delete(f"/v1/keys/{made['id']}").is_success
        moved = {"version": 1, "override": text}
        star = {"if-match": "*"}
        path = "/v1/models/small/aliases/champion"
        assert client.put(path, json=moved, headers=star).status_code == 200
    clean = {"description": "", "tags": {}}
    assert client.patch("/v1/models/small", json=clean).status_code == 200


@pytest.mark.parametrize(
    "label", ["'; DROP TABLE datasets; --", LABELS[-1], LABELS[11]]
)
def test_the_label_of_a_dataset_is_kept_as_it_is(client, label):
    params = {"name": label}
    content = npz(**trajectories())
    made = client.post("/v1/datasets", params=params, content=content, headers=NPZ)
    assert made.json()["name"] == label
    path = f"/v1/datasets/{made.json()['id']}"
    assert client.get(path).json()["name"] == label
    assert client.delete(path).status_code == 204


@pytest.mark.parametrize("label", ["", "a" * 201, "𝔘" * 201])
def test_an_overlong_or_empty_label_is_refused(client, label):
    params = {"name": label}
    response = client.post("/v1/datasets", params=params, content=b"", headers=NPZ)
    checked(response, 422, "invalid", "/name")
    key = {"name": label, "scopes": ["read"]}
    checked(client.post("/v1/keys", json=key), 422, "invalid", "/name")


def test_an_overlong_address_is_answered_by_little(client):
    for path in ("models", "jobs", "datasets"):
        answer = client.get(f"/v1/{path}/{'a' * 50_000}")
        checked(answer, 404, "not_found")
    answer = client.get("/v1/jobs", params={"after": "a" * 50_000})
    assert len(checked(answer, 422, "invalid", "/after")["detail"]) < 1000


@pytest.mark.parametrize("field", ["name", "project"])
def test_nul_in_a_name_is_refused(client, field):
    body = json.dumps({"name": "k", "scopes": ["read"], field: "a\0b"})
    checked(client.post("/v1/keys", content=body, headers=JSON), 422, "invalid")


def test_sql_in_an_idempotency_key_is_a_key_like_others(client):
    made = {}
    for key in ("x'OR'1'='1", "';DROP/**/TABLE/**/jobs;--", "_", "%", "\\", "%25"):
        headers = {"idempotency-key": key}
        first = client.post("/v1/jobs", json=DATASET, headers=headers)
        again = client.post("/v1/jobs", json=DATASET, headers=headers)
        assert first.status_code == again.status_code == 202
        # A wildcard would have found the one before.
        assert "idempotency-replayed" not in first.headers, key
        assert again.headers["idempotency-replayed"] == "true"
        made[key] = first.json()["id"]
        assert again.json()["id"] == made[key]
    assert len(set(made.values())) == len(made)
    for id in made.values():
        assert client.post(f"/v1/jobs/{id}/cancel").is_success


@pytest.mark.parametrize("key", ["x' OR 1=1", "ключ", "\u202ea", "a" * 256, '""', "é"])
def test_an_idempotency_key_of_other_characters_is_refused(client, key):
    headers = {"idempotency-key": key.encode()}
    response = client.post("/v1/jobs", json=DATASET, headers=headers)
    checked(response, 422, "invalid", "/Idempotency-Key")


def test_sql_in_if_match_matches_no_revision(client):
    for text in SQL:
        for path, body in (("", {"description": "b"}), ("/aliases/champion", None)):
            method = "PATCH" if body else "DELETE"
            response = client.request(
                method,
                f"/v1/models/small{path}",
                json=body,
                headers={"if-match": text},
            )
            checked(response, 412, "precondition_failed")
