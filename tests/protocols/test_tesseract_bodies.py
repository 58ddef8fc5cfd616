"""Bodies at the door of Tesseract: its encodings, and what is refused."""

import base64
import json
from collections import Counter
from functools import partial

import httpx
import numpy as np
import pytest
from hypothesis import strategies as st

from api.protocols.tesseract.call import OPERATIONS
from api.protocols.tesseract.description import POST_ENDPOINTS
from tests.fuzzing import MINUTES, fuzz, in_time, nearly
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
SHAPES = {
    "plain": {},
    "kinetics": {"parameters": [2]},
    "forced": {"parameters": [1], "controls": [2, 2]},
    "unsure": {},
    "many": {},
}
"""What each model takes beside x0 and times, with intervals and of members too."""
HUGE = st.sampled_from([10**400, -(10**18), 1e308, 2**63, float("nan")])


@st.composite
def right(draw, model, endpoint):
    """A body that a model takes."""
    given = {name: np.full(shape, 0.8) for name, shape in SHAPES[model].items()}
    # Each array by hand, or with what it is.
    arrays = {"x0": X0, **given, "times": np.array(BODY["times"])}
    if "controls" in arrays:
        arrays["control_times"] = np.array([0.0, 0.4])
    form = st.sampled_from([np.ndarray.tolist, encoded, partial(encoded, form="json")])
    inputs = {name: draw(form)(array) for name, array in arrays.items()}
    final = inputs["final"] = draw(st.booleans())
    inputs["precision"] = draw(st.sampled_from(["model", "float64"]))
    body = {"inputs": inputs}
    if endpoint in ("apply", "abstract_eval"):
        return body
    by = st.lists(st.sampled_from(["x0", *given]), min_size=1, unique=True)
    kind = OPERATIONS[endpoint][1]
    asked = body[f"{kind}_inputs"] = draw(by)
    body[f"{kind}_outputs"] = ["x"]
    if kind == "jvp":
        body["tangent_vector"] = {name: encoded(arrays[name]) for name in asked}
    if kind == "vjp":
        row = [0.5] * 3
        body["cotangent_vector"] = {"x": [row if final else [row] * 2] * 2}
    return body


@st.composite
def bodies(draw):
    """A right body with some places in it replaced by anything; or any bytes."""
    model = draw(st.sampled_from(sorted(SHAPES)))
    endpoint = draw(st.sampled_from(POST_ENDPOINTS))
    if draw(st.integers(0, 9)) == 0:
        deep = draw(st.sampled_from(["[", '{"inputs":', '{"inputs":{"x0":[', ""]))
        made = deep.encode() * draw(st.integers(0, 3000)) + draw(st.binary())
        return model, endpoint, False, made
    is_right, body = draw(nearly(draw(right(model, endpoint)), JSON | HUGE))
    return model, endpoint, is_right, json.dumps(body).encode(errors="surrogatepass")


def check_arrays(endpoint, found):
    """Each array of an answer is finite, and as large as it says."""
    for each in found.values():
        if "object_type" not in each and endpoint == "jacobian":
            check_arrays("", each)
        elif endpoint == "abstract_eval":
            assert set(each) == {"shape", "dtype"}
        else:
            assert np.isfinite(decoded(each)).all()


@in_time
@pytest.mark.usefixtures("unsure_models")
def test_no_body_breaks_the_door(client):
    answered: Counter[tuple[str, str]] = Counter()

    def check(model, endpoint, is_right, content):
        answer = client.post(f"/{model}/1/{endpoint}", content=content)
        told = (model, endpoint, content, answer.text)
        assert answer.status_code in ((200,) if is_right else (200, 422)), told
        if answer.status_code == 200:
            assert set(answer.json()) <= {"x", "x0", "parameters", "controls"}, told
            check_arrays(endpoint, answer.json())
            answered[model, endpoint] += 1
        else:
            assert set(answer.json()) == {"detail"}, told

    fuzz(bodies(), check, examples=150)
    print(f"{answered.total()} answered: {dict(answered)}")
    # A few examples need not meet every model.
    assert answered
    if MINUTES:
        assert {model for model, _ in answered} == set(SHAPES)
        assert {endpoint for _, endpoint in answered} == set(POST_ENDPOINTS)
