"""Spans from a request through its batch to the worker, as a collector gets them."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from tests.api.collector import Collector
from tests.api.deployment import deployed, wait_for

BODY = {"model": "small", "x0": [0.2, 0.3, 0.5], "times": [0.1, 1.0]}
MADE = {"kind": "dataset", "system": "transient_growth", "trajectories": 2, "seed": 0}


@pytest.fixture(scope="module")
def collector():
    made = Collector()
    yield made
    made.close()


@pytest.fixture(scope="module")
def stack(collector):
    settings = {"traces_url": collector.url, "log_format": "json"}
    with deployed(["small"], executor="queue", **settings) as deployment:
        deployment.start("worker", "worker")
        deployment.start("rollouts", "worker", "--rollouts")
        yield deployment.start_gateway()


def context(number: int, *, sampled: bool = True) -> tuple[str, str, str]:
    """A caller's trace and span, and both as the header has them."""
    trace, span = f"{number:032x}", f"{number:016x}"
    return trace, span, f"00-{trace}-{span}-{'01' if sampled else '00'}"


def test_a_rollout_is_one_trace_from_its_caller_to_the_worker(stack, collector) -> None:
    trace, span, header = context(0xA1)
    with stack.client() as client:
        answer = client.post("/v1/rollout", json=BODY, headers={"traceparent": header})
    assert answer.status_code == 200, answer.text
    wait_for(lambda: "compute" in collector.of(trace), 20)
    wait_for(lambda: "POST /v1/rollout" in collector.of(trace), 20)
    found = collector.of(trace)
    (request,), (batch,) = found["POST /v1/rollout"], found["batch"]
    assert request.parent == span
    assert request.service == batch.service == "spnode-gateway"
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/rollout",
        "http.response.status_code": 200,
        "spnode.request_id": answer.headers["x-request-id"],
    }
    # The answer names the gateway's own span, for whoever reports a problem.
    assert answer.headers["traceparent"] == f"00-{trace}-{request.id}-01"
    assert batch.parent == request.id
    assert batch.attributes["spnode.rows"] == 1
    assert batch.attributes["spnode.operation"] == "rollout"
    for computed in found["compute"]:
        assert computed.service == "spnode-rollout-worker"
        assert computed.parent == batch.id
    assert request.seconds >= batch.seconds >= found["compute"][-1].seconds > 0


def test_a_batch_of_several_requests_is_linked_to_each(stack, collector) -> None:
    numbers = range(0x100, 0x140)

    def ask(number: int) -> None:
        headers = {"traceparent": context(number)[2]}
        assert client.post("/v1/rollout", json=BODY, headers=headers).is_success

    with stack.client() as client, ThreadPoolExecutor(16) as threads:
        list(threads.map(ask, numbers))
    traces = [context(number)[0] for number in numbers]

    def requests():
        return [
            span
            for trace in traces
            for span in collector.of(trace).get("POST /v1/rollout", ())
        ]

    def batches():
        return [s for trace in traces for s in collector.of(trace).get("batch", ())]

    wait_for(lambda: len(requests()) == len(numbers), 20)
    wait_for(lambda: sum(b.attributes["spnode.rows"] for b in batches()) == 64, 20)
    ids = {span.id for span in requests()}
    served = [id for batch in batches() for id in (batch.parent, *batch.links)]
    assert len(batches()) < len(numbers), "no two requests shared a batch"
    assert sorted(served) == sorted(ids)


def test_a_job_belongs_to_the_trace_of_its_submission(stack, collector) -> None:
    trace, _, header = context(0xB1)
    with stack.client() as client:
        answer = client.post("/v1/jobs", json=MADE, headers={"traceparent": header})
    assert answer.status_code == 202
    id = answer.json()["id"]
    wait_for(lambda: "job dataset" in collector.of(trace), 90)
    wait_for(lambda: "POST /v1/jobs" in collector.of(trace), 20)
    found = collector.of(trace)
    (job,), (request,) = found["job dataset"], found["POST /v1/jobs"]
    assert job.parent == request.id
    assert job.service == "spnode-worker"
    assert job.attributes == {
        "spnode.job_id": id,
        "spnode.attempt": 1,
        "spnode.queue": job.attributes["spnode.queue"],
        "spnode.ending": "done",
    }
    for step in ("fetch", "compute", "publish"):
        (part,) = found[step]
        assert part.parent == job.id
    assert job.seconds > found["compute"][0].seconds > found["publish"][0].seconds
    log = (stack.folder / "worker.log").read_text().splitlines()
    said = [json.loads(line) for line in log if line.startswith("{")]
    assert {each["trace_id"] for each in said if each.get("job_id") == id} == {trace}


def test_a_caller_that_went_away_has_a_span_that_says_so(stack, collector) -> None:
    trace, _, header = context(0xC2)
    address = urlsplit(stack.url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        head = (
            "POST /v1/rollout HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n"
            f"authorization: Bearer {stack.key}\r\ntraceparent: {header}\r\n\r\n"
        )
        connection.sendall(head.encode() + b"{")
        time.sleep(0.2)
    wait_for(lambda: "POST /v1/rollout" in collector.of(trace), 20)
    (request,) = collector.of(trace)["POST /v1/rollout"]
    assert request.attributes["http.response.status_code"] == 499
    assert not request.is_error


def test_refusals_are_spans_and_health_is_none(stack, collector) -> None:
    trace, _, header = context(0xC1)
    headers = {"traceparent": header}
    with stack.client() as client:
        unknown = client.post(
            "/v1/rollout", json=BODY | {"model": "no"}, headers=headers
        )
        assert unknown.status_code == 404
        assert client.get("/nowhere/at/all", headers=headers).status_code == 404
        assert client.get("/health/live", headers=headers).status_code == 200
    wait_for(lambda: len(collector.of(trace)) == 2, 20)
    (refused,) = collector.of(trace)["POST /v1/rollout"]
    assert refused.attributes["http.response.status_code"] == 404
    # A 4xx is the caller's error, not the server's.
    assert not refused.is_error
    assert set(collector.of(trace)) == {"POST /v1/rollout", "GET other"}


def test_a_caller_that_keeps_no_trace_gets_none(stack, collector) -> None:
    trace, _, header = context(0xD1, sampled=False)
    later, _, after = context(0xD2)
    with stack.client() as client:
        first = client.post("/v1/rollout", json=BODY, headers={"traceparent": header})
        assert first.headers["traceparent"].endswith("-00")
        assert first.headers["traceparent"].startswith(f"00-{trace}-")
        client.post("/v1/rollout", json=BODY, headers={"traceparent": after})
    wait_for(lambda: "compute" in collector.of(later), 20)
    assert collector.of(trace) == {}


def test_work_of_others_is_in_nobody_s_trace(stack, collector) -> None:
    """Of a caller who begins a busy time; what follows is of callers without traces."""
    trace, _, sampled = context(0xE1)
    plain = context(0xE2, sampled=False)[2]

    def ask(header: str) -> None:
        with stack.client() as client:
            for _ in range(6):
                sent = {"traceparent": header}
                assert client.post("/v1/rollout", json=BODY, headers=sent).is_success

    with ThreadPoolExecutor(9) as threads:
        list(threads.map(ask, [sampled] + 8 * [plain]))
    wait_for(lambda: len(collector.of(trace).get("POST /v1/rollout", ())) == 6, 20)
    wait_for(lambda: len(collector.of(trace).get("compute", ())) >= 6, 20)
    found = collector.of(trace)
    assert len(found["batch"]) == 6
    assert {each.parent for each in found["compute"]} == {b.id for b in found["batch"]}


def test_what_was_sent_is_in_no_span(stack, collector) -> None:
    trace, _, header = context(0xF1)
    body = {**BODY, "model": "secret-name", "x0": [123.456, 0.5, 0.5]}
    with stack.client() as client:
        sent = {"traceparent": header}
        assert client.post("/v1/rollout", json=body, headers=sent).status_code == 404
        wrong = {**body, "model": "small", "x0": [123.456, "no-number", 0.5]}
        assert client.post("/v1/rollout", json=wrong, headers=sent).status_code == 422
    wait_for(lambda: len(collector.of(trace).get("POST /v1/rollout", ())) == 2, 20)
    said = repr(collector.of(trace))
    assert "secret-name" not in said
    assert "123.456" not in said
    assert "no-number" not in said


def test_nonsense_in_the_header_begins_a_trace(stack, collector) -> None:
    sent = {"traceparent": "00-nonsense"}
    with stack.client() as client:
        answer = client.post("/v1/rollout", json=BODY, headers=sent)
    assert answer.status_code == 200
    trace = answer.headers["traceparent"].split("-")[1]
    wait_for(lambda: "POST /v1/rollout" in collector.of(trace), 20)
    assert collector.of(trace)["POST /v1/rollout"][0].parent == ""


def test_a_collector_that_never_answers_costs_no_answer_and_no_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with deployed(traces_url=url) as deployment:
            with deployment.start_gateway().client() as client:
                began = time.monotonic()
                # More than the queue of spans holds.
                for _ in range(2500):
                    assert client.get("/v1/limits").status_code == 200
                # It would take 5 s each time to hear of it.
                assert time.monotonic() - began < 60
            began = time.monotonic()
            assert deployment.stop("gateway") == 0
            assert time.monotonic() - began < 15
