import base64
import re
import socket
import time

import httpx
import pytest

from api.auth import OPEN, needed_scope
from tests.api.deployment import deployed
from tests.api.test_errors import checked

ROLLOUT = {"model": "small", "x0": [0.5, 1e-5, 0.5], "times": [1.0]}


def test_every_form_of_a_key_is_taken(deployment):
    pair = base64.b64encode(f"anybody:{deployment.key}".encode()).decode()
    forms = [
        {"authorization": f"Bearer {deployment.key}"},
        {"authorization": f"bearer {deployment.key}"},
        {"x-api-key": deployment.key},
        {"authorization": f"Basic {pair}"},
    ]
    for headers in forms:
        response = httpx.get(f"{deployment.url}/v1/models", headers=headers)
        assert response.status_code == 200, headers


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer spn_nobody_nothing"},
        {"authorization": "Bearer x"},
        {"authorization": f"Basic {base64.b64encode(b'x:spn_a' + bytes(1)).decode()}"},
        {"authorization": "Basic !!!"},
        {"authorization": "Digest a=b"},
        {"x-api-key": "é".encode()},
    ],
)
def test_no_key_or_a_wrong_one_is_unauthorised(deployment, headers):
    response = httpx.post(f"{deployment.url}/v1/rollout", headers=headers, json=ROLLOUT)
    checked(response, 401, "unauthorised")
    assert "Bearer" in response.headers["www-authenticate"]


def test_a_missing_scope_is_named(deployment):
    with deployment.client(deployment.new_key("read")) as client:
        assert client.get("/v1/models").status_code == 200
        problem = checked(client.post("/v1/rollout", json=ROLLOUT), 403, "forbidden")
        assert "'rollout'" in problem["detail"]
        checked(client.get("/v1/keys"), 403, "forbidden")


def test_a_key_for_rollouts_can_do_nothing_else(deployment):
    with deployment.client(deployment.new_key("rollout")) as client:
        assert client.post("/v1/rollout", json=ROLLOUT).status_code == 200
        for method, path in (("GET", "/v1/models"), ("POST", "/v1/jobs")):
            checked(client.request(method, path), 403, "forbidden")


def test_a_key_is_asked_for_before_the_body_is_read(deployment):
    """The server answers though not one byte of the announced body was sent."""
    host, port = deployment.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/datasets HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
        )
        assert b" 401 " in connection.recv(1000).split(b"\r\n")[0]


def test_health_and_description_are_open(deployment):
    for path in ("/health/live", "/health/ready", "/openapi.json"):
        assert httpx.get(f"{deployment.url}{path}", timeout=60).status_code == 200
    assert httpx.get(f"{deployment.url}/docs").headers["location"] == "/#/reference"


def test_a_key_can_be_made_used_listed_and_revoked(client, deployment):
    made = client.post("/v1/keys", json={"name": "mine", "scopes": ["read"]})
    assert made.status_code == 201
    key = made.json()
    with deployment.client(key["secret"]) as mine:
        assert mine.get("/v1/models").status_code == 200
        listed = client.get("/v1/keys").json()["data"]
        assert key["secret"] not in str(listed)
        assert key["id"] in [each["id"] for each in listed]
        assert client.delete(f"/v1/keys/{key['id']}").status_code == 200
        checked(mine.get("/v1/models"), 401, "unauthorised")
    wrong = client.post("/v1/keys", json={"name": "mine", "scopes": ["fly"]})
    checked(wrong, 422, "invalid", "/scopes")


def test_a_key_is_rotated_while_it_is_in_use(client, deployment):
    asked = {"name": "mine", "scopes": ["read"], "expires_in_seconds": 3600}
    old = client.post("/v1/keys", json=asked).json()
    answer = client.post(f"/v1/keys/{old['id']}/rotate", json={"keep_seconds": 30})
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    new = answer.json()
    assert new["expires_at"] > old["expires_at"]
    for each in (old, new):
        with deployment.client(each["secret"]) as mine:
            assert mine.get("/v1/models").status_code == 200
            checked(mine.post(f"/v1/keys/{new['id']}/rotate"), 403, "forbidden")
    at_once = {"keep_seconds": 0}
    last = client.post(f"/v1/keys/{new['id']}/rotate", json=at_once).json()
    with deployment.client(new["secret"]) as mine:
        checked(mine.get("/v1/models"), 401, "unauthorised")
    again = client.post(f"/v1/keys/{new['id']}/rotate", json=at_once)
    checked(again, 409, "conflict")
    for keep in (-1, False, "30"):
        asked = {"keep_seconds": keep}
        wrong = client.post(f"/v1/keys/{last['id']}/rotate", json=asked)
        checked(wrong, 422, "invalid", "/keep_seconds")


def test_what_may_change_something_is_noted_and_told_to_admins_alone(
    client, deployment
):
    asked = {"name": "mine", "scopes": ["read"]}
    made = client.post("/v1/keys", json=asked, headers={"x-request-id": "first"})
    key = made.json()
    with deployment.client(key["secret"]) as mine:
        mine.get("/v1/models")
        checked(mine.post("/v1/jobs", json={}), 403, "forbidden")
        checked(mine.get("/v1/audit"), 403, "forbidden")
        checked(mine.post("/v1/rollout", json={}), 403, "forbidden")
    with deployment.client(None) as nobody:
        checked(nobody.post("/v1/jobs", json={}), 401, "unauthorised")
    client.delete("/v1/jobs/%F0%9F%A6%86'; DROP TABLE audit; --")
    (theirs,) = client.get(f"/v1/audit?caller=key:{key['id']}").json()["data"]
    assert (theirs["method"], theirs["path"]) == ("POST", "/v1/jobs")
    assert theirs["status"] == 403
    page = client.get("/v1/audit?limit=3").json()
    told = [(each["method"], each["path"], each["status"]) for each in page["data"]]
    assert told == [
        ("DELETE", "/v1/jobs/\U0001f986'; DROP TABLE audit; --", 405),
        ("POST", "/v1/jobs", 403),
        ("POST", "/v1/keys", 201),
    ]
    assert page["data"][2]["request_id"] == "first"
    made = [each["made"] for each in page["data"]]
    assert made == [None, None, f"/v1/keys/{key['id']}"]
    assert key["secret"] not in str(page)


def test_loopback_needs_no_key_where_the_setting_opens_it():
    with deployed() as data:
        opened = data.start_gateway(loopback_open=True)
        assert httpx.get(f"{opened.url}/v1/models").status_code == 200
        port = opened.url.rsplit(":", 1)[1]
        for origin in (opened.url, f"http://localhost:{port}"):
            headers = {"origin": origin, "host": origin.removeprefix("http://")}
            response = httpx.get(f"{opened.url}/v1/models", headers=headers)
            assert response.status_code == 200, headers
        for headers in (
            {"host": "evil.example"},
            {"x-forwarded-for": "1.2.3.4"},
            # Of a page elsewhere, of a file, of another server on this machine.
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"origin": "http://127.0.0.1:1"},
        ):
            response = httpx.get(f"{opened.url}/v1/models", headers=headers)
            checked(response, 401, "unauthorised")
        assert data.stop("gateway") == 0


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/rollout", "rollout"),
        ("POST", "/v1/rollout/vjp", "rollout"),
        ("POST", "/jobs", "jobs:write"),
        ("POST", "/v1/jobs/j/cancel", "jobs:write"),
        ("GET", "/v1/jobs/j", "read"),
        ("POST", "/v1/datasets", "datasets:write"),
        ("DELETE", "/v1/datasets/d", "datasets:write"),
        ("PUT", "/v1/models/m/aliases/a", "models:write"),
        ("PATCH", "/v1/models/m", "models:write"),
        ("GET", "/v1/models/m", "read"),
        ("GET", "/v1/keys", "admin"),
        ("HEAD", "/v1/keys", "admin"),
        ("GET", "/metrics", "metrics"),
        ("HEAD", "/metrics", "metrics"),
        ("DELETE", "/v1/keys/k", "admin"),
    ],
)
def test_each_request_needs_its_scope(method, path, scope):
    assert needed_scope(method, path) == scope


def test_no_route_answers_without_a_key_or_without_its_scope(deployment):
    """Of the description, so that a new one is asked too."""
    for_metrics = deployment.new_key("metrics")
    asked = 0
    with deployment.client(None) as nobody, deployment.client(for_metrics) as other:
        for path, item in nobody.get("/openapi.json").json()["paths"].items():
            if OPEN.match(path):
                continue
            address = re.sub(r"\{\w+\}", "1", path)
            for method in (*item, *({"head"} if "get" in item else ())):
                asked += 1
                told = (method, path)
                assert nobody.request(method, address).status_code == 401, told
                if path != "/metrics":
                    assert other.request(method, address).status_code == 403, told
    assert asked > 60


def test_a_key_revoked_at_one_gateway_is_refused_by_the_other_in_a_second(
    data, deployment
):
    other = data.start_gateway("revoking", until="live", executor="queue")
    key = data.new_key("read")
    try:
        with (
            other.client(key) as elsewhere,
            deployment.client(data.new_key("admin")) as admin,
        ):
            # Believed from now on.
            assert elsewhere.get("/v1/models").status_code == 200
            listed = admin.get("/v1/keys").json()["data"]
            known = next(each["id"] for each in listed if each["id"] in key)
            assert elsewhere.get("/v1/models").status_code == 200
            assert admin.delete(f"/v1/keys/{known}").status_code == 200
            revoked_at = time.monotonic()
            while elsewhere.get("/v1/models").status_code == 200:
                # A second, and what a slow machine takes for two requests.
                assert time.monotonic() - revoked_at < 3
                time.sleep(0.05)
            checked(elsewhere.get("/v1/models"), 401, "unauthorised")
    finally:
        data.stop("revoking")
