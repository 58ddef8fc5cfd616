"""What the UM-Bridge door refuses, in the protocol's words."""

import json

import httpx
import pytest

from tests.protocols.umbridge_calls import OPERATIONS, ask, opened_door, refused


@pytest.fixture(scope="module")
def door(service):
    with opened_door(service) as client:
        yield client


RIGHT = {
    "name": "kinetics@latest",
    "input": [[0.5, 1e-5, 0.5], [1.0, 1.0]],
    "outWrt": 0,
    "inWrt": 0,
    "inWrt1": 0,
    "inWrt2": 0,
    "sens": [0, 0, 0],
    "vec": [0, 0, 0],
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input": [[0] * 4, [0] * 3]}, "input[0]: found 4 numbers; expected 3"),
        ({"input": [[0, 0, 0]]}, "input: found 1 vectors; expected 2"),
        ({"input": [[0, 0, "1"], [1, 1]]}, "input[0][2]: found '1'"),
        ({"input": [[0, True, 0], [1, 1]]}, "input[0][1]: found True"),
        ({"input": [0, 1]}, "input[0]: found 0; expected a list"),
        ({"input": None}, "input: found None; expected a list of vectors"),
        (
            {"config": {"t2": 1}},
            "/config/t2: found a field that is not known here; expected one of t1, "
            "times, states",
        ),
        ({"config": {"number": 1}}, "/config/number: found a field that is not known"),
        (
            {"config": {"fixed": {"x": [1]}}},
            "/config/fixed/x: found a field that is not",
        ),
        ({"config": {"noise": 0}}, "/config/noise: found 0; expected greater than 0"),
        ({"config": {"noise": [1, 0]}}, "/config/noise/1: found 0; expected greater"),
        ({"config": {"noise": "1"}}, "/config/noise: found '1'"),
        ({"config": {"t1": "1"}}, "/config/t1: found '1'"),
        ({"config": {"t1": -1}}, "/config/t1: found -1"),
        ({"config": []}, "config: found []; expected an object"),
        ({"config": {"t1": 1, "times": [1]}}, "config.t1: found 1.0"),
        ({"config": {"times": [1, 1]}}, "config.times"),
        ({"config": {"times": []}}, "config.times"),
        ({"config": {"times": {"stop": 1, "count": 10**9}}}, "config.times.count"),
        ({"config": {"states": ["a", "q"]}}, "config.states[1]: found 'q'"),
        ({"config": {"control_times": [0]}}, "config.control_times: found times"),
        ({"config": {"fixed": {"controls": [0]}}}, "this version takes no controls"),
        ({"config": {"fixed": {"x0": [1]}}}, "config.fixed.x0: found 1 numbers"),
        (
            {"config": {"fixed": {"x0": [0, 0, 0], "parameters": [1, 1]}}},
            "config.fixed: found every input",
        ),
        ({"config": {"observations": [1, 1, 1]}}, "config.noise: found nothing"),
        ({"config": {"noise": 1}}, "config.observations: found nothing"),
        (
            {"config": {"observations": [1, 1], "noise": 1}},
            "config.observations: found an array of shape (2,)",
        ),
        (
            {"config": {"observations": [1, 1, 1], "noise": [1, 1]}},
            "config.noise: found 2 numbers",
        ),
        (
            {"config": {"observations": [1, 1, 1], "noise": 1e-200}},
            "config.noise: found 1e-200",
        ),
        ({"config": {"precision": "float16"}}, "/config/precision"),
    ],
)
def test_what_is_wrong_is_named_as_the_caller_calls_it(
    door, operation, fields, message
):
    assert message in refused(ask(door, operation, **(RIGHT | fields)))


@pytest.mark.parametrize(
    ("operation", "fields", "message"),
    [
        ("Gradient", {"outWrt": 1}, "outWrt: found 1; expected an integer from 0 to 0"),
        ("Gradient", {"inWrt": 2}, "inWrt: found 2; expected an integer from 0 to 1"),
        ("Gradient", {"inWrt": -1}, "inWrt: found -1"),
        ("Gradient", {"inWrt": True}, "inWrt: found True"),
        ("Gradient", {"sens": [0]}, "sens: found 1 numbers; expected 3"),
        ("ApplyJacobian", {"inWrt": 1}, "vec: found 3 numbers; expected 2"),
        ("ApplyJacobian", {"outWrt": "0"}, "outWrt: found '0'"),
        ("ApplyHessian", {"inWrt2": 9}, "inWrt2: found 9"),
        ("ApplyHessian", {"vec": None}, "vec: found None; expected a list of numbers"),
    ],
)
def test_indices_and_weights_are_checked(door, operation, fields, message):
    assert message in refused(ask(door, operation, **(RIGHT | fields)))


@pytest.mark.parametrize("operation", [*OPERATIONS, "ModelInfo", "InputSizes"])
def test_an_unknown_model_is_found_before_anything_else(door, operation):
    for name in ("wrong_model_name", "Wrong Name!", "kinetics/9", "kinetics@none", ""):
        refused(ask(door, operation, name=name), "ModelNotFound")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_body_is_json_whatever_its_type_is_called(door, operation):
    for content in (b"", b"[", b"\xff", b"1", b"[]", b"{}", b'{"name": NaN}'):
        refused(door.post(f"/{operation}", content=content))
    text = json.dumps(RIGHT)
    for kind in ("text/plain", "application/x-npz", "application/json"):
        done = door.post(f"/{operation}", content=text, headers={"Content-Type": kind})
        assert done.status_code == 200, done.text


def test_what_does_not_exist_is_no_feature(door):
    for path in ("TestShMem", "EvaluateShMem", "kinetics@latest/Nothing"):
        refused(ask(door, path, name="kinetics@latest"), "UnsupportedFeature")
    refused(door.get("/Evaluate"), "method_not_allowed", 405)
    refused(door.put("/Evaluate"), "method_not_allowed", 405)


def test_strangers_and_oversized_bodies_get_the_doors_form(service, door):
    url = f"{service.url}/umbridge/Evaluate"
    stranger = httpx.post(url, auth=("key", "wrong"), trust_env=False)
    refused(stranger, "unauthorised", 401)
    big = door.post("/Evaluate", content=b" " * (4 * 2**20 + 1))
    refused(big, "too_large", 413)


def test_what_leaves_the_finite_range_is_no_output(door):
    far = [[1e300] * 3, [1.0, 1.0]]
    response = ask(door, "Evaluate", name="kinetics@latest", input=far)
    assert response.status_code in (200, 400)
    steep = RIGHT | {"config": {"observations": [1, 1, 1], "noise": 1e-150}}
    found = ask(door, "Gradient", **steep | {"sens": [1e300]})
    refused(found, found.json()["error"]["type"])


@pytest.mark.parametrize(
    "field", ["name", "config", "input", "sens", "vec", "inWrt2", "outWrt"]
)
def test_deep_nesting_is_refused(door, field):
    for depth in (200, 300, 1000, 100_000):
        nested = "[" * depth + "]" * depth
        for value in (nested, f'{{"fixed": {nested}}}', f"[{nested}]"):
            others = json.dumps({k: v for k, v in RIGHT.items() if k != field})
            body = f'{others[:-1]}, "{field}": {value}}}'
            refused(door.post("/ApplyHessian", content=body))
