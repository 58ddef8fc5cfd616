"""The Open Inference Protocol: by Triton's own client, and by plain HTTP."""

import base64
import functools
import gzip
import json
import zlib
from pathlib import Path

import httpx
import numpy as np
import pytest

from spnode_core.surrogate import cast_networks
from tests.protocols.environments import run_client
from tests.protocols.inference import GIVEN, ROWS, TIMES, body, tensor
from tests.protocols.pages import run_page_block

PROGRAMS = Path(__file__).parent / "programs"
EXAMPLE = Path(__file__).parent.parent.parent / "docs/examples/infer_triton.py"
SCALE = np.array([1.0, 4e-5, 1.1])


def infer(client, content, model="plain", status=200, **headers):
    """Post bytes or JSON; the answer's JSON, whose refusals are one string."""
    sent = content if isinstance(content, bytes) else json.dumps(content).encode()
    response = client.post(f"/v2/models/{model}/infer", content=sent, headers=headers)
    assert response.status_code == status, response.text
    found = response.json()
    if status != 200:
        assert set(found) == {"error"}
        assert isinstance(found["error"], str)
    return found


def output(answer, name="x"):
    (found,) = [each for each in answer["outputs"] if each["name"] == name]
    return np.array(found["data"]).reshape(found["shape"])


def expect(found, surrogate, **given):
    x = surrogate.rollout(GIVEN["x0"], TIMES, **given)
    np.testing.assert_allclose(found / SCALE, np.asarray(x) / SCALE, atol=1e-12)


def test_tritonclient_gets_what_the_library_computes(service, tmp_path):
    np.savez(tmp_path / "given.npz", **GIVEN)
    said = run_client(
        "clients",
        PROGRAMS / "open_inference_triton.py",
        service.url,
        service.key,
        tmp_path / "given.npz",
        tmp_path / "found.npz",
    )
    assert said.endswith("ok\n")
    found, made = np.load(tmp_path / "found.npz"), service.surrogates
    expect(found["binary"], made["plain"])
    np.testing.assert_allclose(found["single"], found["binary"], rtol=1e-4, atol=1e-6)
    expect(found["kinetics"], made["kinetics"], parameters=GIVEN["parameters"])
    expect(
        found["forced"],
        cast_networks(made["forced"], "float64"),
        parameters=GIVEN["parameters"][0, :1],
        controls=GIVEN["controls"],
        control_times=GIVEN["control_times"],
    )


def test_the_example_runs(service):
    environment = {"SPNODE_URL": service.url, "SPNODE_KEY": service.key}
    said = run_client("clients", EXAMPLE, "plain", **environment)
    assert "x has shape (1000, 20, 3), from 0.01 to 100" in said


def test_the_block_of_the_page_runs(service, tmp_path):
    said = run_page_block(
        "clients",
        "doors/open_inference.md",
        __file__,
        {
            "127.0.0.1:8000": service.url.removeprefix("http://"),
            "spn_…": service.key,
            "robertson": "plain",
        },
        folder=tmp_path,
        after="print(x.tolist())",
    )
    x0 = np.array([[1.0, 0.0, 0.0], [0.9, 0.0, 0.1]])
    expected = service.surrogates["plain"].rollout(x0, np.geomspace(1e-2, 1e2, 20))
    found = np.array(json.loads(said)) / SCALE
    np.testing.assert_allclose(found, np.asarray(expected) / SCALE, atol=1e-12)


def test_json_gets_and_gives_flat_numbers(client, service):
    flat = tensor("x0", data=GIVEN["x0"].ravel().tolist())
    named = {"model_name": "plain", "model_version": "1"}
    answer = infer(client, body(flat, tensor("times"), id="a", **named))
    named["model_name"] = "plain@latest"
    infer(client, body(flat, tensor("times"), **named), "plain@latest")
    assert answer["id"] == "a"
    assert (answer["model_name"], answer["model_version"]) == ("plain", "1")
    assert all(isinstance(each, float) for each in answer["outputs"][0]["data"])
    expect(output(answer), service.surrogates["plain"])
    assert output(answer, "inside").tolist() == [True] * ROWS
    assert answer["parameters"]["inside"] is True


def test_one_row_is_for_all_and_one_vector_is_a_row(client):
    one = tensor("parameters", shape=[1, 2], data=[0.7, 1.1])
    many = infer(client, body(tensor("x0"), tensor("times"), one), "kinetics")
    assert output(many).shape == (ROWS, 3, 3)
    inputs = [
        tensor("x0", shape=[3], data=GIVEN["x0"][0].tolist()),
        tensor("parameters", shape=[2], data=[0.7, 1.1]),
        tensor("times"),
    ]
    single = infer(client, body(*inputs), "kinetics")
    assert (output(single)[0] == output(many)[0]).all()


@pytest.mark.usefixtures("unsure_models")
def test_intervals_spread_and_latent_are_outputs(client):
    names = ["x", "lower", "upper"]
    described = client.get("/v2/models/unsure").json()
    assert names == [each["name"] for each in described["outputs"]][:3]
    for asked in (
        {"outputs": [{"name": name} for name in names]},
        {"parameters": {"intervals": 0.9}},
    ):
        answer = infer(client, body(**asked), "unsure")
        assert answer["parameters"]["coverage"] == 0.9
        x, lower, upper = (output(answer, name) for name in names)
        assert ((lower < x) & (x < upper)).all()
    spread = infer(client, body(outputs=[{"name": "spread"}]), "many")
    assert output(spread, "spread").shape == (ROWS, 3, 3)
    latent = infer(client, body(outputs=[{"name": "latent"}]))
    assert output(latent, "latent").shape == (ROWS, 3, 5)
    for name, reason in {
        "spread": "outputs.spread",
        "lower": "parameters.intervals: found 0.9; expected none",
    }.items():
        refused = infer(client, body(outputs=[{"name": name}]), status=400)
        assert reason in refused["error"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the body is no JSON"),
        (b"[1, 2", "the body is no JSON"),
        (b"[" * 100_000, "the body is no JSON"),
        (b"\xff\x00", "the body is no JSON"),
        ({}, "/inputs"),
        (body(inputs=[]), "/inputs"),
        (body(model_nam="x"), "/model_nam"),
        (body(tensor("x0", datatype="INT64")), "/inputs/0/datatype: found 'INT64'"),
        (body(tensor("x0", shape=[-1, 3])), "/inputs/0/shape/0: found -1"),
        (body(tensor("x0", shape=[10**15, 3])), "inputs.x0.data: found 15 numbers"),
        (body(tensor("x0", shape=[10**2200] * 2)), "/inputs/0/shape/0"),
        (body(parameters={"timeout": 10**400}), "/parameters/timeout"),
        (body(tensor("x0"), parameters={"dt": 1, "steps": 10**4299}), "/steps"),
        (body(model_name="other"), "model_name: found 'other'; expected 'plain'"),
        (body(model_version="2"), "model_version: found '2'; expected '1'"),
        (body(tensor("x0", data=[[1.0], [1.0, 2.0]])), "inputs.x0.data[1]"),
        (body(tensor("x0", data=["a"])), "/inputs/0/data/0: found 'a'"),
        (body(tensor("x0", data=[None])), "/inputs/0/data/0: found None"),
        (body(tensor("x0"), tensor("x0")), "inputs.x0: found it twice"),
        (body(tensor("times")), "inputs.x0: found nothing; expected 3 states"),
        (body(tensor("x0", shape=[3, 5], data=[0.1] * 15)), "inputs.x0[0]"),
        (body(tensor("x0"), tensor("parameters")), "inputs.parameters"),
        (
            body(tensor("x0"), tensor("controls", shape=[1, 1, 1], data=[0.5])),
            "inputs.controls: found an array of shape (1, 1, 1); expected none",
        ),
        (body(tensor("x0"), tensor("times", data=[2, 1, 3])), "inputs.times[1]"),
        (body(outputs=[{"name": "y"}]), "outputs[0].name: found 'y'"),
        (body(outputs=[{"name": "x"}] * 2), "outputs[1].name: found 'x' again"),
        (body(parameters={"stpe": 1}), "/parameters/stpe"),
        (body(parameters={"stop": 1.0}), "parameters.stop: found it beside inputs"),
        (body(tensor("x0"), parameters={"stop": 1.0}), "parameters.count"),
        (body(tensor("x0"), parameters={"dt": 1, "stop": 1}), "parameters.stop"),
        (
            body(tensor("x0"), parameters={"stop": 1.0, "count": 10**9}),
            "parameters.count: found 1000000000 times",
        ),
        (body(tensor("x0", data=[1e300] * 15, datatype="FP32")), "inputs.x0[0, 0]"),
    ],
)
def test_what_is_wrong_is_named(client, content, reason):
    assert reason in infer(client, content, status=400)["error"]


def raw(values=GIVEN["x0"], **fields):
    size = {"binary_data_size": values.nbytes}
    given = tensor("x0", parameters=size, **fields)
    del given["data"]
    head = json.dumps(body(given, tensor("times"))).encode()
    return head, head + values.tobytes()


def test_raw_tensors_must_fill_the_body(client):
    head, whole = raw()
    name, length = "Inference-Header-Content-Length", str(len(head))
    infer(client, whole, **{name: length})
    infer(client, gzip.compress(whole), **{name: length, "Content-Encoding": "gzip"})
    for content, sent, reason in (
        (whole, None, "the body is no JSON"),
        (whole, "0", name),
        (whole, "-5", name),
        (whole, "9" * 30, name),
        (whole, str(len(whole) + 1), name),
        (whole[:-8], length, "112 bytes left"),
        (whole + b"12345678", length, "8 bytes after the last input"),
    ):
        headers = {} if sent is None else {name: sent}
        assert reason in infer(client, content, status=400, **headers)["error"]
    bad = GIVEN["x0"].copy()
    bad[2, 1] = np.nan
    head, whole = raw(bad)
    refused = infer(client, whole, status=400, **{name: str(len(head))})
    assert refused["error"] == "inputs.x0[2, 1]: found nan; expected a finite number"
    head, whole = raw(shape=[4, 3])
    refused = infer(client, whole, status=400, **{name: str(len(head))})
    assert "expected 96 for FP64 of shape [4, 3]" in refused["error"]


def test_a_compressed_body_is_bounded(client, service):
    limit = service.deployment.settings.max_body_bytes
    bomb = b" " * (3 * limit)
    for coding, packed in (
        ("gzip", gzip.compress(bomb)),
        ("deflate", zlib.compress(bomb)),
    ):
        assert len(packed) < limit
        refused = infer(client, packed, status=413, **{"Content-Encoding": coding})
        assert "larger than" in refused["error"]
    sent = gzip.compress(json.dumps(body()).encode())
    for content in (sent[:-4], sent + b"more", b"none", zlib.compress(b"{}")):
        refused = infer(client, content, status=400, **{"Content-Encoding": "gzip"})
        assert refused["error"].startswith("body: found no gzip")
    refused = infer(client, sent, status=415, **{"Content-Encoding": "br"})
    assert "expected gzip or deflate" in refused["error"]


def test_answers_are_compressed_where_that_is_accepted(client):
    for accepted, coding in (
        ("gzip, deflate", "gzip"),
        ("gzip;q=0, deflate;q=0.5", "deflate"),
        ("br", None),
        ("identity", None),
    ):
        answer = client.post(
            "/v2/models/plain/infer", json=body(), headers={"Accept-Encoding": accepted}
        )
        assert answer.headers.get("content-encoding") == coding
        assert answer.json()["model_name"] == "plain"


def test_an_address_means_one_version(client):
    for model in ("plain", "plain@latest", "plain/versions/1", "plain/versions/latest"):
        assert infer(client, body(), model)["model_version"] == "1"
    for model, status, reason in (
        ("other", 404, "there is no model 'other'"),
        ("plain@champion", 404, "plain@champion"),
        ("plain/versions/7", 404, "there is no version 'plain/7'"),
        ("plain/versions/0", 400, "plain/0"),
        ("plain@latest/versions/1", 400, "not both"),
        ("PLAIN", 400, "'PLAIN'"),
        ("a%2Fb", 404, "nothing at"),
    ):
        assert reason in infer(client, body(), model, status)["error"]


def test_who_may_do_what(client, service):
    reader = service.deployment.new_key("read")
    pair = base64.b64encode(f"any:{reader}".encode()).decode()
    for headers in ({"x-api-key": reader}, {"authorization": f"Basic {pair}"}):
        assert client.get("/v2/models/plain", headers=headers).status_code == 200
        path = "/v2/repository/index"
        for wrong in (b"true", b"[]", b"no"):
            assert client.post(path, content=wrong, headers=headers).status_code == 400
        index = client.post(path, headers=headers)
        assert {"name", "version", "state", "reason"} == set(index.json()[0])
        post = functools.partial(client.post, headers=headers)
        refused = post("/v2/models/plain/infer", json=body())
        assert refused.status_code == 403
        assert "lacks 'rollout'" in refused.json()["error"]


def test_what_is_not_there_says_so(client, service):
    with httpx.Client(base_url=service.url, trust_env=False) as stranger:
        assert stranger.get("/v2/health/live").json() == {"live": True}
        assert stranger.get("/v2/health/ready").status_code in (200, 503)
    for path in ("/v2/trace/setting", "/v2/models/plain/generate", "/v2/models"):
        refused = client.get(path)
        assert refused.status_code == 404
        assert "nothing at" in refused.json()["error"]
    refused = client.get("/v2/models/plain/infer")
    assert refused.status_code == 405
    assert set(refused.json()) == {"error"}


def stats(client, address="models/kinetics/versions/1"):
    (found,) = client.get(f"/v2/{address}/stats").json()["model_stats"]
    return found


def test_statistics_are_what_was_computed(client):
    before = stats(client)
    inputs = tensor("x0"), tensor("parameters"), tensor("times")
    for _ in range(3):
        infer(client, body(*inputs), "kinetics")
    late = body(*inputs, parameters={"timeout": 1})
    infer(client, late, "kinetics", status=504)
    after = stats(client)
    assert after == stats(client, "models/kinetics")
    assert after["inference_count"] - before["inference_count"] == 3 * ROWS
    assert after["execution_count"] - before["execution_count"] == 3
    assert after["last_inference"] > before["last_inference"]
    for name, more in {
        "success": 3,
        "fail": 1,
        "queue": 3,
        "compute_infer": 3,
        "compute_input": 0,
    }.items():
        new, old = after["inference_stats"][name], before["inference_stats"][name]
        assert new["count"] - old["count"] == more, name
        assert (new["ns"] > old["ns"]) == (more > 0)
    sizes = {each["batch_size"]: each for each in after["batch_stats"]}
    assert sizes[ROWS]["compute_infer"]["count"] >= 3
    # Another door counts too, and a version is not another one.
    everything = client.get("/v2/models/stats").json()["model_stats"]
    assert after in everything
    given = {name: GIVEN[name].tolist() for name in ("x0", "parameters", "times")}
    client.post("/v1/rollout", json={"model": "kinetics/1", **given})
    assert stats(client)["inference_count"] - after["inference_count"] == ROWS
