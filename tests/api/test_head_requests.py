"""HEAD tells what GET tells, without its body: balancers and `curl -I` ask so."""

import re
import time

import httpx
import pytest

from tests.api.deployment import wait_for
from tests.api.test_errors import NPZ, checked, npz, trajectories
from tests.api.test_metrics import read

# Of each answer its own.
OWN = {"date", "x-request-id", "transfer-encoding"}


def headers(answer: httpx.Response) -> dict[str, str]:
    return {name: each for name, each in answer.headers.items() if name not in OWN}


def test_every_route_tells_head_what_it_tells_get(client):
    """Of the description, so that a new one is asked too."""
    asked = 0
    for path, item in client.get("/openapi.json").json()["paths"].items():
        assert "head" not in item
        if "get" not in item:
            continue
        asked += 1
        address = re.sub(r"\{\w+\}", "small", path)
        got, told = client.get(address), client.head(address)
        assert (told.status_code, told.content) == (got.status_code, b""), path
        # What waits and how old it is changes between the two.
        if path not in ("/metrics", "/health/ready") and got.status_code == 200:
            assert headers(told) == headers(got), path
            assert int(told.headers["content-length"]) == len(got.content)
    assert asked > 30


@pytest.mark.parametrize("path", ["/", "/docs", "/page/style.css", "/page/nothing"])
def test_the_page_is_told_of_too(client, path):
    got, told = client.get(path), client.head(path)
    assert (told.status_code, told.content) == (got.status_code, b"")
    if got.is_success:
        assert headers(told) == headers(got)


def test_what_has_a_tag_is_known_by_it(client):
    made = client.post("/v1/datasets", content=npz(**trajectories()), headers=NPZ)
    path = f"/v1/datasets/{made.json()['id']}/data"
    got, told = client.get(path), client.head(path)
    assert headers(told) == headers(got)
    assert int(told.headers["content-length"]) == len(got.content)
    known = client.head(path, headers={"if-none-match": told.headers["etag"]})
    assert known.status_code == 304


def test_the_events_of_a_job_that_waits_do_not_hold_it_up(client):
    made = client.post(
        "/v1/datasets", content=npz(**trajectories(count=4)), headers=NPZ
    )
    body = {"kind": "training", "dataset": made.json()["id"], "model": "headed"}
    job = client.post("/v1/jobs", json=body).json()["id"]
    try:
        began = time.monotonic()
        told = client.head(f"/v1/jobs/{job}/events")
        assert told.status_code == 200
        assert told.headers["content-type"].startswith("text/event-stream")
        # The connection is free for what comes next.
        assert client.get("/health/live").status_code == 200
        assert time.monotonic() - began < 5
        assert client.head(f"/v1/jobs/{'0' * 30}/events").status_code == 404
    finally:
        client.post(f"/v1/jobs/{job}/cancel")


def test_it_needs_the_scope_that_get_needs(deployment):
    with deployment.client(deployment.new_key("read")) as reader:
        assert reader.head("/v1/models").status_code == 200
        assert reader.head("/metrics").status_code == 403
        assert reader.head("/v1/keys").status_code == 403
    with deployment.client(None) as nobody:
        assert nobody.head("/v1/models").status_code == 401


def test_it_is_counted_by_its_route_and_refused_where_get_is(client):
    labels = {"method": "HEAD", "route": "/v1/models/{name}", "status": "200"}
    before = read(client)("spnode_request_seconds_count", **labels)
    assert client.head("/v1/models/small").status_code == 200
    wait_for(
        lambda: read(client)("spnode_request_seconds_count", **labels) == before + 1, 5
    )
    missing = labels | {"status": "404"}
    assert client.head("/v1/models/nothing").status_code == 404
    wait_for(lambda: read(client)("spnode_request_seconds_count", **missing) >= 1, 5)
    refused = client.head("/v1/rollout")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    checked(client.put("/v1/models"), 405, "method_not_allowed")
    assert client.put("/v1/models").headers["allow"] == "GET, HEAD"
