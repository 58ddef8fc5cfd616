"""Whatever is sent to /v2 is answered or refused, never with a 500."""

import json

from hypothesis import strategies as st

from tests.fuzzing import fuzz, in_time
from tests.protocols.inference import GIVEN, body, tensor

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
KEYS = ("name", "shape", "datatype", "data", "parameters")
MORE = ("stop", "count", "steps", "id", "timeout", "priority", "model_version")


@st.composite
def nearly(draw):
    """A right request with something in it replaced, left out or added."""
    names = st.sampled_from(list(GIVEN))
    inputs = [tensor(draw(names)) for _ in range(draw(st.integers(0, 3)))]
    made = body(*inputs, parameters={}, outputs=[{"name": "x", "parameters": {}}])
    places = [made, made["parameters"], made["outputs"][0], *made["inputs"]]
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(places))
        key = draw(st.sampled_from([*place, *KEYS, *MORE]))
        place[key] = draw(ANY)
    return json.dumps(made).encode()


HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "Inference-Header-Content-Length": st.integers(-1, 300).map(str),
        "Content-Encoding": st.sampled_from(["gzip", "deflate", "identity", "x"]),
        "Accept-Encoding": st.text("gzipq=0;, ", max_size=9).map(str.strip),
    },
)


REQUESTS = st.tuples(
    st.sampled_from(["plain", "kinetics"]),
    st.binary(max_size=60) | ANY.map(json.dumps).map(str.encode) | nearly(),
    HEADERS,
)


@in_time
def test_nothing_that_is_sent_breaks_the_door(client):
    def check(model, content, headers):
        path = f"/v2/models/{model}/infer"
        answer = client.post(path, content=content, headers=headers)
        told = (model, content, headers, answer.text)
        assert answer.status_code in (200, 400, 404, 413, 415), told
        if answer.status_code != 200:
            assert set(answer.json()) == {"error"}, told

    fuzz(REQUESTS, check, examples=60)
