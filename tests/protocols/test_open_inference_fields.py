"""Which fields the protocol's answers have, and of what type: no others, none less.

The schemas say what the Open Inference Protocol and Triton's extensions of it require;
what is optional there and never sent here is left out.
"""

import json
import math

import httpx
import jsonschema
import pytest

from tests.protocols.inference import body, tensor

TEXT = {"type": "string", "minLength": 1}
TRUTH = {"type": "boolean"}
COUNT = {"type": "integer", "minimum": 0}
NUMBERS = "^(BOOL|U?INT(8|16|32|64)|FP(16|32|64))$"
VERSION = {"type": "string", "pattern": "^[1-9][0-9]*$"}


def listed(item, least=0):
    return {"type": "array", "items": item, "minItems": least}


def named(item):
    return {"type": "object", "additionalProperties": item}


def record(optional=None, /, **required):
    return {
        "type": "object",
        "properties": required | (optional or {}),
        "required": list(required),
        "additionalProperties": False,
    }


def axes(least):
    return listed({"type": "integer", "minimum": least}, 1)


PARAMETERS = named({"type": ["string", "number", "boolean"]})
DATATYPE = {"type": "string", "pattern": NUMBERS}
TENSOR = record(name=TEXT, datatype=DATATYPE, shape=axes(-1))
PUT = {"type": "string", "pattern": NUMBERS.replace("^", "^TYPE_")}
CONFIGURED = {"name": TEXT, "data_type": PUT, "dims": axes(-1)}
DURATION = record(count=COUNT, ns=COUNT)
COMPUTED = dict.fromkeys(("compute_input", "compute_infer", "compute_output"), DURATION)
ASKED = dict.fromkeys(("success", "fail", "queue", "cache_hit", "cache_miss"), DURATION)
STATISTICS = record(
    model_stats=listed(
        record(
            name=TEXT,
            version=VERSION,
            last_inference=COUNT,
            inference_count=COUNT,
            execution_count=COUNT,
            inference_stats=record(**ASKED, **COMPUTED),
            batch_stats=listed(record(batch_size=COUNT, **COMPUTED)),
        )
    )
)
READY = record(name=TEXT, ready=TRUTH)
METADATA = record(
    name=TEXT,
    versions=listed(VERSION, 1),
    platform={"type": "string", "pattern": "^[a-z]+_[a-z]+$"},
    inputs=listed(TENSOR, 1),
    outputs=listed(TENSOR, 1),
    properties=named({"type": "string"}),
)
CONFIG = record(
    name=TEXT,
    platform=TEXT,
    backend=TEXT,
    version_policy=record(all=record()),
    max_batch_size=COUNT,
    input=listed(record(**CONFIGURED, optional=TRUTH), 1),
    output=listed(record(**CONFIGURED), 1),
    parameters=named(record(string_value=TEXT)),
)
INDEX = listed(record(name=TEXT, version=VERSION, state=TEXT, reason=TEXT), 1)
SENT = {"name": TEXT, "datatype": DATATYPE, "shape": axes(0)}
IN_JSON = record(**SENT, data=listed({"type": ["number", "boolean"]}, 1))
IN_BYTES = record(**SENT, parameters=record(binary_data_size=COUNT))
ERROR = record(error=TEXT)


def answered(tensors):
    told = {"id": TEXT, "parameters": PARAMETERS}
    outputs = listed(tensors, 1)
    return record(told, model_name=TEXT, model_version=VERSION, outputs=outputs)


def read(client, path):
    answer = client.get(f"/v2{path}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def fits(found, schema):
    jsonschema.Draft202012Validator(schema).validate(found)


@pytest.mark.parametrize(
    ("path", "schema"),
    [
        ("", record(name=TEXT, version=TEXT, extensions=listed(TEXT, 1))),
        ("/health/live", record(live=TRUTH)),
        ("/models/stats", STATISTICS),
    ],
)
def test_the_server_has_its_fields(client, path, schema):
    fits(read(client, path), schema)


@pytest.mark.parametrize("model", ["plain", "forced@latest", "kinetics/versions/1"])
def test_a_model_has_its_fields(client, model):
    found = read(client, f"/models/{model}")
    fits(found, METADATA)
    assert found["name"] == model.split("@")[0].split("/")[0]
    for rest, schema in (("ready", READY), ("config", CONFIG), ("stats", STATISTICS)):
        fits(read(client, f"/models/{model}/{rest}"), schema)


def test_the_server_says_whether_it_is_ready(client):
    answer = client.get("/v2/health/ready")
    fits(answer.json(), record({"error": TEXT}, ready=TRUTH))
    assert answer.json()["ready"] == (answer.status_code == 200)


def test_the_index_has_its_fields(client):
    fits(client.post("/v2/repository/index").json(), INDEX)


@pytest.mark.parametrize("asked", [None, "42"])
def test_an_inference_has_its_fields(client, asked):
    sent = body(tensor("x0"), tensor("times"), **({"id": asked} if asked else {}))
    answer = client.post("/v2/models/plain/infer", json=sent)
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()
    fits(found, answered(IN_JSON))
    assert found.get("id") == asked
    for each in found["outputs"]:
        assert len(each["data"]) == math.prod(each["shape"])
        kind = bool if each["datatype"] == "BOOL" else float
        assert {type(value) for value in each["data"]} == {kind}


def test_an_inference_in_bytes_has_its_fields(client):
    sent = body(parameters={"binary_data_output": True})
    answer = client.post("/v2/models/plain/infer", json=sent)
    assert answer.headers["content-type"] == "application/octet-stream"
    end = int(answer.headers["inference-header-content-length"])
    found = json.loads(answer.content[:end])
    fits(found, answered(IN_BYTES))
    sizes = [each["parameters"]["binary_data_size"] for each in found["outputs"]]
    assert end + sum(sizes) == len(answer.content)
    for each, size in zip(found["outputs"], sizes, strict=True):
        width = 1 if each["datatype"] == "BOOL" else 8
        assert size == width * math.prod(each["shape"])


@pytest.mark.parametrize(
    ("method", "path", "sent", "status"),
    [
        ("GET", "/models/nothing", None, 404),
        ("GET", "/models/nothing/ready", None, 404),
        ("GET", "/models/nothing/config", None, 404),
        ("GET", "/models/nothing/stats", None, 404),
        ("GET", "/models/plain/versions/9", None, 404),
        ("GET", "/nothing", None, 404),
        ("GET", "/repository/index", None, 405),
        ("POST", "/repository/index", [], 400),
        ("POST", "/repository/models/plain/load", {}, 409),
        ("POST", "/models/nothing/infer", body(), 404),
        ("POST", "/models/plain/infer", {}, 400),
        ("POST", "/models/plain/infer", body(tensor("x0", shape=[1])), 400),
        ("POST", "/models/plain/infer", body(tensor("x0", datatype="BYTES")), 400),
        ("POST", "/models/plain/infer", body(parameters={"timeout": 1}), 504),
    ],
)
def test_a_refusal_is_one_string(client, service, method, path, sent, status):
    answer = client.request(method, f"/v2{path}", json=sent)
    assert answer.status_code == status, answer.text
    fits(answer.json(), ERROR)
    with httpx.Client(base_url=service.url, trust_env=False) as stranger:
        unknown = stranger.request(method, f"/v2{path}", json=sent)
    assert unknown.status_code == 401
    fits(unknown.json(), ERROR)
