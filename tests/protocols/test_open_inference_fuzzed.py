"""Whatever is sent to /v2 is answered or refused, never with a 500."""

import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import strategies as st

from tests.fuzzing import MINUTES, fuzz, in_time, nearly
from tests.protocols.inference import TAKES, body, taken

WORDS = st.sampled_from(
    [
        "x0",
        "times",
        "parameters",
        "controls",
        "FP64",
        "FP32",
        "stop",
        "count",
        "dt",
        "x",
    ]
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | WORDS
    | st.sampled_from([1e308, -0.0, 2**63, 10**400, 10**2200])
)
ANY = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(WORDS | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)
KEYS = (
    *("name", "shape", "datatype", "data", "parameters", "intervals"),
    *("stop", "count", "steps", "id", "timeout", "priority", "model_version"),
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "precision": st.just("float64"),
        "mode": st.just("throughput"),
        "datatype": st.just("FP32"),
        "binary_data_output": st.booleans(),
    },
)
OUTPUTS = {"unsure": ("lower", "upper"), "many": ("spread",)}
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "Inference-Header-Content-Length": st.integers(-1, 300).map(str),
        "Content-Encoding": st.sampled_from(["gzip", "deflate", "identity", "x"]),
    },
)
ACCEPTED = st.text("gzipq=0;, ", max_size=9).map(str.strip)


@st.composite
def right(draw, model):
    """A request that a model answers."""
    names = ["x", "times", "inside", *OUTPUTS.get(model, ("latent",))]
    parameters = draw(OPTIONS)
    if model == "unsure" and draw(st.booleans()):
        parameters["intervals"] = 0.9
    asked = draw(st.lists(st.sampled_from(names), unique=True))
    outputs = [{"name": name, "parameters": {}} for name in asked]
    return body(*taken(model), parameters=parameters, outputs=outputs)


@st.composite
def requests(draw):
    """A model, headers, whether they and the body are right, and the body."""
    model = draw(st.sampled_from(sorted(TAKES)))
    headers = {"Accept-Encoding": draw(ACCEPTED)}
    kind = draw(st.integers(0, 9))
    if kind < 2:
        anything = st.binary(max_size=60) | ANY.map(json.dumps).map(str.encode)
        return model, headers | draw(HEADERS), False, draw(anything)
    is_right, made = draw(nearly(draw(right(model)), ANY))
    if kind < 5 and isinstance(made, dict):
        inner = [made, *(each for each in made.values() if isinstance(each, dict))]
        draw(st.sampled_from(inner))[draw(st.sampled_from(KEYS))] = draw(ANY)
        is_right = False
    if kind == 9:
        headers, is_right = headers | draw(HEADERS), False
    return model, headers, is_right, json.dumps(made).encode()


def check_outputs(answer):
    """Each output is finite, and as large as it says."""
    end = int(answer.headers.get("Inference-Header-Content-Length", 0))
    told = json.loads(answer.content[:end] or answer.content)
    raw = len(answer.content) - end if end else 0
    for each in told["outputs"]:
        count = math.prod(each["shape"])
        if "data" in each:
            assert len(each["data"]) == count
            assert np.isfinite(each["data"]).all()
        else:
            size = each["parameters"]["binary_data_size"]
            assert size == count * {"FP64": 8, "FP32": 4, "BOOL": 1}[each["datatype"]]
            raw -= size
    assert raw == 0


@in_time
@pytest.mark.usefixtures("unsure_models")
def test_nothing_that_is_sent_breaks_the_door(client):
    answered: Counter[str] = Counter()

    def check(model, headers, is_right, content):
        path = f"/v2/models/{model}/infer"
        answer = client.post(path, content=content, headers=headers)
        told = (model, headers, content, answer.content)
        allowed = {200} if is_right else {200, 400, 404, 413, 415}
        # Who gives microseconds may be late.
        allowed |= {504} if b'"timeout"' in content else set()
        assert answer.status_code in allowed, told
        if answer.status_code == 200:
            check_outputs(answer)
            answered[model] += 1
        else:
            assert set(answer.json()) == {"error"}, told

    fuzz(requests(), check, examples=100)
    print(f"{answered.total()} answered: {dict(answered)}")
    # A few examples need not meet every model.
    assert set(answered) == set(TAKES) if MINUTES else answered
