"""Bodies at the door of Tesseract: its encodings, and what is refused."""

import base64
import json

import httpx
import numpy as np
import pytest
from hypothesis import strategies as st

from tests.fuzzing import fuzz, in_time
from tests.protocols.kinetics import BODY, MODEL, PARAMETERS, X0


@pytest.fixture(scope="module")
def client(service):
    with httpx.Client(
        base_url=f"{service.url}/tesseract",
        headers={"x-api-key": service.key},
        trust_env=False,
        timeout=120,
    ) as made:
        yield made


def encoded(array, form="base64"):
    array = np.asarray(array)
    buffer = array.ravel().tolist()
    if form == "base64":
        buffer = base64.b64encode(array.tobytes()).decode()
    return {
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "data": {"buffer": buffer, "encoding": form},
    }


def decoded(sent):
    assert sent["object_type"] == "array"
    buffer = sent["data"]["buffer"]
    if sent["data"]["encoding"] == "base64":
        buffer = np.frombuffer(base64.b64decode(buffer), sent["dtype"])
    return np.array(buffer, sent["dtype"]).reshape(sent["shape"])


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("*/*", "json"),
        ("", "json"),
        ("application/*; gpu_transport=none", "base64"),
        ("application/json", "json"),
        ("application/json+base64; compression=none", "base64"),
        ("application/json+binref, application/json+base64;q=0.5", "base64"),
        ("application/json;q=0.1, application/json+base64", "base64"),
    ],
)
def test_accept_chooses_the_encoding(client, accept, form):
    inputs = {name: encoded(value) for name, value in BODY.items()}
    answer = client.post(
        f"/{MODEL}/1/apply", json={"inputs": inputs}, headers={"accept": accept}
    )
    assert answer.status_code == 200, answer.text
    (sent,) = answer.json().values()
    assert sent["data"]["encoding"] == form
    kind = "application/json" if form == "json" else "application/json+base64"
    assert answer.headers["content-type"] == kind
    lists = client.post(f"/{MODEL}/1/apply", json={"inputs": BODY})
    assert (decoded(sent) == decoded(lists.json()["x"])).all()


@pytest.mark.parametrize(
    "accept",
    [
        "text/html",
        "application/json+binref",
        "application/json; compression=lz4",
        "application/*; gpu_transport=cuda_ipc",
        "application/json;q=0",
        "application/json;q=nan",
    ],
)
def test_what_cannot_be_accepted_is_406_with_what_can(client, accept):
    answer = client.post(
        f"/{MODEL}/1/apply", json={"inputs": BODY}, headers={"accept": accept}
    )
    assert answer.status_code == 406
    assert answer.json()["detail"]["available_formats"] == ["json", "json+base64"]


def wrong_array(**changes):
    return {"inputs": {**BODY, "x0": {**encoded(X0), **changes}}}


def wrong(**changes):
    return {"inputs": {**BODY, **changes}}


@pytest.mark.parametrize(
    ("endpoint", "body", "place"),
    [
        ("apply", [], []),
        ("apply", {}, ["inputs"]),
        ("apply", {"inputs": []}, ["inputs"]),
        ("apply", {"inputs": BODY, "more": 1}, ["more"]),
        ("apply", wrong(x0=None), ["inputs", "x0"]),
        ("apply", wrong(times=None), ["inputs", "times"]),
        ("apply", wrong(x0=[[0.1, 0.2], [0.3]]), ["inputs", "x0", "1"]),
        ("apply", wrong(x0=[0.1, True, 0.3]), ["inputs", "x0", "1"]),
        ("apply", wrong(x0=[0.1, None, 0.3]), ["inputs", "x0", "1"]),
        ("apply", wrong(x0=[]), ["inputs", "x0"]),
        ("apply", wrong(x0=1.0), ["inputs", "x0"]),
        ("apply", wrong(x0="abc"), ["inputs", "x0"]),
        ("apply", wrong(parameters=[1.0]), ["inputs", "parameters"]),
        ("apply", wrong(parameters=[[1.0, 1.0]] * 3), ["inputs", "parameters"]),
        ("apply", wrong(controls=[[1.0]]), ["inputs", "controls"]),
        ("apply", wrong(control_times=[0.0]), ["inputs", "control_times"]),
        ("apply", wrong(times=[[0.5, 1.0], [0.5, 2.0]]), ["inputs", "times"]),
        ("apply", wrong(times=[1.0, 0.5]), ["inputs", "times", "1"]),
        ("apply", wrong(times=1.0), ["inputs", "times"]),
        ("apply", wrong(final=1), ["inputs", "final"]),
        ("apply", wrong(precision="float16"), ["inputs", "precision"]),
        ("apply", wrong(mode=["throughput"]), ["inputs", "mode"]),
        ("apply", wrong_array(shape=[3, 3]), ["inputs", "x0", "data", "buffer"]),
        ("apply", wrong_array(shape=[2, -3]), ["inputs", "x0", "shape"]),
        ("apply", wrong_array(shape=[0, 2**62]), ["inputs", "x0"]),
        ("apply", wrong_array(shape=[1] * 40), ["inputs", "x0", "shape"]),
        ("apply", wrong_array(dtype="complex128"), ["inputs", "x0", "dtype"]),
        ("apply", wrong_array(dtype=["float64"]), ["inputs", "x0", "dtype"]),
        ("apply", wrong_array(object_type="list"), ["inputs", "x0", "object_type"]),
        ("apply", wrong_array(data=None), ["inputs", "x0", "data"]),
        ("apply", wrong_array(strides=1), ["inputs", "x0", "strides"]),
        (
            "apply",
            wrong_array(data={"buffer": "é", "encoding": "base64"}),
            ["inputs", "x0", "data", "buffer"],
        ),
        (
            "apply",
            wrong_array(data={"buffer": "x.bin:0", "encoding": "binref"}),
            ["inputs", "x0", "data", "encoding"],
        ),
        (
            "apply",
            wrong_array(
                data={"buffer": "", "encoding": "base64", "compression": "lz4"}
            ),
            ["inputs", "x0", "data", "compression"],
        ),
        (
            "abstract_eval",
            wrong(x0={"shape": [4], "dtype": "float64"}),
            ["inputs", "x0"],
        ),
        (
            "jacobian",
            {"inputs": BODY, "jac_inputs": ["times"], "jac_outputs": ["x"]},
            ["jac_inputs", "0"],
        ),
        (
            "jacobian",
            {"inputs": BODY, "jac_inputs": [], "jac_outputs": ["x"]},
            ["jac_inputs"],
        ),
        (
            "jacobian_vector_product",
            {
                "inputs": BODY,
                "jvp_inputs": ["x0"],
                "jvp_outputs": ["x"],
                "tangent_vector": {"x0": [1.0, 0.0, 0.0]},
            },
            ["tangent_vector", "x0"],
        ),
        (
            "vector_jacobian_product",
            {
                "inputs": BODY,
                "vjp_inputs": ["x0"],
                "vjp_outputs": ["x"],
                "cotangent_vector": {"x": [1.0, 0.0, 0.0]},
            },
            ["cotangent_vector", "x"],
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place(client, endpoint, body, place):
    answer = client.post(f"/{MODEL}/1/{endpoint}", json=body)
    assert answer.status_code == 422, answer.text
    (told,) = answer.json()["detail"]
    assert told["loc"] == ["body", *place]
    assert told["msg"].startswith("found ")
    assert "; expected " in told["msg"]


def test_sizes_are_refused_before_anything_is_made(client):
    """Few bytes that would repeat to many: the limits are in rows and in numbers."""
    flat = {"dtype": "float64"}
    many = {
        "x0": {**flat, "shape": [10**9, 1, 3]},
        "parameters": {**flat, "shape": [10**9, 2]},
        "times": {**flat, "shape": [10]},
    }
    answer = client.post(f"/{MODEL}/1/abstract_eval", json={"inputs": many})
    (told,) = answer.json()["detail"]
    assert told["loc"] == ["body", "inputs", "x0"]
    assert "at most 65536 in a request" in told["msg"]
    sent = {
        "x0": np.tile(X0[0], (300, 1, 1)).tolist(),
        "parameters": np.tile(PARAMETERS, (300, 1)).tolist(),
        "times": [1.0],
    }
    answer = client.post(f"/{MODEL}/1/apply", json={"inputs": sent})
    assert "90000 rows" in answer.json()["detail"][0]["msg"]
    wide = {**sent, "parameters": PARAMETERS.tolist(), "times": list(range(1, 99))}
    body = {"inputs": wide, "jac_inputs": ["x0"], "jac_outputs": ["x"]}
    answer = client.post(f"/{MODEL}/1/jacobian", json=body)
    (told,) = answer.json()["detail"]
    assert told["loc"] == ["body", "jac_inputs"]
    assert "79380000 numbers" in told["msg"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
ASKED = {
    "apply": {},
    "abstract_eval": {},
    "jacobian": {"jac_inputs": ["x0"], "jac_outputs": ["x"]},
    "jacobian_vector_product": {
        "jvp_inputs": ["x0"],
        "jvp_outputs": ["x"],
        "tangent_vector": {"x0": encoded(X0)},
    },
    "vector_jacobian_product": {
        "vjp_inputs": ["x0"],
        "vjp_outputs": ["x"],
        "cotangent_vector": {"x": [[[0.0] * 3] * 2] * 2},
    },
}


def places(value, place=()):
    """Every place in a tree of JSON."""
    yield place
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, inner in items:
        yield from places(inner, (*place, key))


def changed(value, place, new):
    if not place:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[place[0]] = changed(value[place[0]], place[1:], new)
    return copy


@st.composite
def bodies(draw):
    """A right body with one to three places in it replaced by anything; or any bytes."""
    endpoint = draw(st.sampled_from(sorted(ASKED)))
    if draw(st.integers(0, 9)) == 0:
        deep = draw(st.sampled_from(["[", '{"inputs":', '{"inputs":{"x0":[', ""]))
        return endpoint, deep.encode() * draw(st.integers(0, 3000)) + draw(st.binary())
    inputs = {**BODY, "x0": encoded(X0), "final": True}
    body = {"inputs": inputs, **ASKED[endpoint]}
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(list(places(body))))
        huge = st.sampled_from([10**400, -(10**18), 1e308, 2**63, float("nan")])
        body = changed(body, place, draw(JSON | huge))
    return endpoint, json.dumps(body).encode(errors="surrogatepass")


@in_time
def test_no_body_breaks_the_door(client):
    def check(endpoint, content):
        answer = client.post(f"/{MODEL}/1/{endpoint}", content=content)
        assert answer.status_code in (200, 422), (endpoint, content, answer.text)
        assert set(answer.json()) <= {"detail", "x", "x0", "parameters"}

    fuzz(bodies(), check, examples=150)
