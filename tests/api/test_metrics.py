"""What whoever is on call can read, and how often a key may ask."""

import asyncio
import contextlib
import functools
import json
import time

import httpx
from prometheus_client.parser import text_string_to_metric_families

from services.rates import Rates
from tests.api.deployment import wait_for
from tests.api.test_errors import NPZ, checked, npz, trajectories

ROLLOUT = {"model": "small", "x0": [0.5, 1e-5, 0.5], "times": [1.0]}


def samples(text: str) -> dict[tuple[str, frozenset], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def read(client: httpx.Client):
    """A reading as a function of name and labels."""
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    found = samples(response.text)
    return lambda name, **labels: found.get((name, frozenset(labels.items())), 0.0)


def test_requests_batches_and_problems_are_counted(caller) -> None:
    rollout = {"method": "POST", "route": "/v1/rollout"}
    assert caller.post("/v1/rollout", json=ROLLOUT).status_code == 200
    before = read(caller)
    for _ in range(3):
        assert caller.post("/v1/rollout", json=ROLLOUT).status_code == 200
    checked(caller.post("/v1/rollout", json={**ROLLOUT, "times": []}), 422, "invalid")
    after = read(caller)

    def more(name: str, **labels: str) -> float:
        return after(name, **labels) - before(name, **labels)

    assert more("spnode_request_seconds_count", **rollout, status="200") == 3
    assert more("spnode_request_seconds_count", **rollout, status="422") == 1
    assert more("spnode_problems_total", code="invalid") == 1
    assert more("spnode_batch_rows_sum") == 3
    assert more("spnode_batch_wait_seconds_count") == 3
    assert more("spnode_batch_seconds_count", operation="rollout") == 3
    assert more("spnode_rollout_requests_total") == 3
    assert more("spnode_rollout_compilations_on_request_total") == 0
    assert after("spnode_warm") == after("spnode_database_up") == 1
    assert after("process_resident_memory_bytes") > 1e7


def test_routes_are_labels_and_what_stands_in_them_is_not(client, deployment) -> None:
    version, call = "/v1/models/small/versions/1", {"name": "small"}
    for path in (version, "/v2/models/small", "/tesseract/small/1", "/nothing/small"):
        client.get(path)
    client.post("/umbridge/InputSizes", json=call)
    client.request("BREW", "/v1/models/small")
    text = client.get("/metrics").text
    assert "small" not in text
    assert "BREW" not in text
    routes = {
        dict(labels).get("route")
        for name, labels in samples(text)
        if name == "spnode_request_seconds_count"
    }
    wanted = {
        "/v1/models/{name}/versions/{version}",
        "/v2/models/{model}",
        "/tesseract",
        "/umbridge",
        "other",
    }
    assert wanted <= routes, routes


def test_what_waits_is_told_by_queue(client) -> None:
    content = npz(**trajectories(count=4))
    dataset = client.post("/v1/datasets", content=content, headers=NPZ).json()["id"]
    body = {"kind": "training", "dataset": dataset, "model": "waits"}
    job = client.post("/v1/jobs", json=body).json()["id"]
    queued = {"queue": "training", "kind": "training", "state": "queued"}
    first = read(client)
    assert first("spnode_jobs", **queued) >= 1
    time.sleep(0.3)
    name, where = "spnode_job_queue_age_seconds", {"queue": "training"}
    assert read(client)(name, kind="training", **where) > first(
        name, kind="training", **where
    )
    client.post(f"/v1/jobs/{job}/cancel")
    assert read(client)("spnode_jobs", **queued) == first("spnode_jobs", **queued) - 1


def test_a_scope_of_its_own_reads_them_and_nothing_else(deployment) -> None:
    with deployment.client(deployment.new_key("read")) as client:
        checked(client.get("/metrics"), 403, "forbidden")
    with deployment.client(deployment.new_key("metrics")) as client:
        assert client.get("/metrics").status_code == 200
        checked(client.get("/v1/models"), 403, "forbidden")


def test_a_rollout_worker_has_them_on_a_port_of_its_own(queue_deployment) -> None:
    url = f"http://127.0.0.1:{queue_deployment.metrics_port}/metrics"
    with queue_deployment.client() as client:
        assert client.post("/v1/rollout", json=ROLLOUT).status_code == 200
        workers = read(client)
        assert workers("spnode_workers", queue="rollouts") == 1
    watched = url.removesuffix("/metrics")
    for path in ("/live", "/ready"):
        answer = httpx.get(watched + path, trust_env=False)
        assert (answer.status_code, answer.text) == (200, "ok\n")
    text = httpx.get(url, trust_env=False).text
    found = samples(text)
    assert found["spnode_rollout_models_resident", frozenset()] >= 1
    assert found["spnode_rollout_compilations_total", frozenset()] >= 1


def test_a_key_asks_as_often_as_it_may_over_all_gateways(data) -> None:
    """40 at once and 20 a second are allowed; 200 are asked in turns."""
    limits = {"executor": "queue", "rate_per_key": 20.0, "rate_burst": 40}
    limits |= {"log_format": "json"}
    start = functools.partial(data.start_gateway, until="live", **limits)
    gateways = [start(f"limited-{n}") for n in range(2)]
    key, other = data.new_key("read"), data.new_key("read")
    opened = contextlib.ExitStack()
    try:
        clients = [opened.enter_context(each.client(key)) for each in gateways]
        began = time.monotonic()
        answers = [clients[n % 2].get("/v1/presets") for n in range(200)]
        took = time.monotonic() - began
        taken = [each for each in answers if each.status_code == 200]
        # A gateway may hold some tokens that it does not spend.
        assert 30 <= len(taken) <= 40 + 20 * took + 1
        refused = next(each for each in answers if each.status_code != 200)
        problem = checked(refused, 429, "too_many_requests")
        assert "20 times a second" in problem["detail"]
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["ratelimit"] == '"requests";r=0;t=2'
        left = [int(each.headers["ratelimit"].split(";")[1][2:]) for each in taken]
        assert max(left) <= 39
        assert taken[0].headers["ratelimit-policy"] == '"requests";q=40;w=2'
        with gateways[0].client(other) as client:
            assert client.get("/v1/presets").status_code == 200
        time.sleep(1.0)
        assert clients[0].get("/v1/presets").status_code == 200
        # What a key may not do counts too, and what its rate refuses is not noted.
        wrong = [clients[n % 2].post("/v1/jobs", json={}) for n in range(100)]
        assert {each.status_code for each in wrong} <= {403, 429}
        assert wrong[0].headers["ratelimit-policy"] == '"requests";q=40;w=2'
        with gateways[0].client(data.new_key("admin")) as client:
            whose = client.get("/v1/audit?limit=1").json()["data"][0]["caller"]
            query = {"caller": whose, "limit": 100}
            acts = client.get("/v1/audit", params=query).json()["data"]
        assert {each["path"] for each in acts} == {"/v1/jobs"}
        noted = [each["status"] for each in acts]
        assert noted == [403] * sum(each.status_code == 403 for each in wrong)
    finally:
        opened.close()
        for n in range(2):
            data.stop(f"limited-{n}")
    for line in (data.folder / "limited-0.log").read_text().splitlines():
        assert json.loads(line)["level"] in ("info", "warning"), line


def test_many_at_once_lose_no_tokens(data) -> None:
    """Waves of 16 requests at 0.8 of the rate: none is refused."""
    settings = data.settings.model_copy(
        update={"rate_per_key": 200.0, "rate_burst": 100}
    )

    async def ask() -> list[int]:
        rates, left = Rates(settings), []
        for _ in range(30):
            wave = (rates.spend("key:waves") for _ in range(16))
            for each in await asyncio.gather(*wave):
                each.check()
                left.append(each.remaining)
            await asyncio.sleep(0.1)
        await rates.close()
        return left

    left = asyncio.run(ask())
    assert len(left) == 480
    assert all(0 <= each < 100 for each in left)


def test_nobody_is_refused_while_valkey_does_not_answer(data) -> None:
    """A gateway without Valkey cannot compute by queue, but it can read."""
    limits = {"executor": "queue", "rate_per_key": 0.001, "rate_burst": 1}
    gateway = data.start_gateway("unlimited", until="live", **limits)
    try:
        with gateway.client(data.new_key("read")) as client:
            assert client.get("/v1/presets").status_code == 200
            assert client.get("/v1/presets").status_code == 429
            data.processes["valkey"].send_signal(19)  # SIGSTOP
            try:
                wait_for(lambda: client.get("/v1/presets").status_code == 200, 10)
                assert client.get("/v1/presets").status_code == 200
            finally:
                data.processes["valkey"].send_signal(18)  # SIGCONT
    finally:
        data.stop("unlimited")
