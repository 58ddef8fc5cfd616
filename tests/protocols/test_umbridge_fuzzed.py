"""Whatever is sent to /umbridge is answered or refused, never with a 500."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import strategies as st

from tests.fuzzing import MINUTES, fuzz, in_time, nearly
from tests.protocols.umbridge_calls import OPERATIONS, opened_door

X0 = [0.5, 1e-5, 0.5]
TAKES = {
    "plain": {"x0": X0},
    "kinetics": {"x0": X0, "parameters": [1.2, 0.8]},
    "forced": {"x0": X0, "parameters": [1.2], "controls": [0.4, -0.7]},
    "unsure": {"x0": X0},
    "many": {"x0": X0},
}
"""What each model takes, one with intervals and one of members too."""
TIMES = [
    {},
    {"t1": 3.0},
    {"times": [0.3, 1.7, 3.0]},
    {"times": {"stop": 2.0, "count": 3}},
    {"times": {"dt": 0.5, "steps": 2}},
]
"""Of one state, or of three: few programs are compiled."""
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "states": st.just(["c", "a"]),
        "packed": st.booleans(),
        "precision": st.sampled_from(["model", "float64"]),
    },
)
ANSWERED = {"ModelInfo": "support", "InputSizes": "inputSizes"}
ANSWERED |= {"OutputSizes": "outputSizes"} | dict.fromkeys(OPERATIONS, "output")
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner)
    ),
    max_leaves=12,
)
NUMBERS = st.lists(st.floats(-1e3, 1e3) | ANY, max_size=4)
CONFIG = st.fixed_dictionaries(
    {},
    optional={
        "t1": st.floats(),
        "times": NUMBERS | st.dictionaries(st.sampled_from(["stop", "count"]), ANY),
        "states": st.lists(st.sampled_from(["a", "b", "q"])),
        "control_times": NUMBERS,
        "packed": st.booleans() | ANY,
        "fixed": st.dictionaries(st.sampled_from(list(TAKES["forced"])), NUMBERS),
        "observations": NUMBERS | st.lists(NUMBERS, max_size=3),
        "noise": st.floats() | NUMBERS,
    },
)


@pytest.fixture(scope="module")
def door(service):
    with opened_door(service) as client:
        yield client


@st.composite
def right(draw):
    """A body that all operations answer."""
    model = draw(st.sampled_from(sorted(TAKES)))
    taken = dict(TAKES[model])
    config = draw(st.sampled_from(TIMES)) | draw(OPTIONS)
    if model == "forced" and draw(st.booleans()):
        config["control_times"] = [0, 1, 2]
        taken["controls"] = 3 * taken["controls"]
    if draw(st.booleans()):
        name = draw(st.sampled_from(sorted(taken)))
        config["fixed"] = {name: [None, *taken[name][1:]]}
        taken[name] = taken[name][:1]
    vectors = list(taken.values())
    if config.get("packed"):
        vectors = [[number for vector in vectors for number in vector]]
    row, rows = [0.3] * len(config.get("states", X0)), 3 * ("times" in config)
    sens = row * (rows or 1)
    if draw(st.booleans()):
        config["observations"] = [[None, *row[1:]]] * rows if rows else row
        config["noise"] = draw(st.sampled_from([0.1, [0.2] * len(row)]))
        sens = [2.0]
    first, second = draw(st.tuples(*[st.integers(0, len(vectors) - 1)] * 2))
    return {
        "name": f"{model}@latest",
        "config": config,
        "input": vectors,
        "outWrt": 0,
        "inWrt": second,
        "inWrt1": first,
        "inWrt2": second,
        "sens": sens,
        "vec": [0.1] * len(vectors[second]),
    }


@st.composite
def requests(draw):
    """An operation, a body that it answers where there is one, and what is sent."""
    operation = draw(st.sampled_from(list(ANSWERED)))
    if draw(st.integers(0, 9)) == 0:
        return operation, None, draw(st.binary(max_size=40))
    is_right, body = draw(nearly(draw(right()), ANY | NUMBERS))
    if isinstance(body, dict) and draw(st.integers(0, 3)) == 0:
        is_right, body = False, body | {"config": draw(CONFIG | ANY)}
    return operation, body if is_right else None, json.dumps(body).encode()


def size_of(operation, body):
    """How many numbers a right body is answered with."""
    if operation in ("Evaluate", "ApplyJacobian"):
        return len(body["sens"])
    which = "inWrt" if operation == "Gradient" else "inWrt1"
    return len(body["input"][body[which]])


@in_time
@pytest.mark.usefixtures("unsure_models")
def test_no_body_breaks_the_door(door):
    answered: Counter[str] = Counter()

    def check(operation, right, body):
        response = door.post(f"/{operation}", content=body)
        told = (operation, body, response.text)
        content = response.json()
        if response.status_code == 200:
            assert set(content) == {ANSWERED[operation]}, told
            answered[json.loads(body)["name"]] += 1
            if operation in OPERATIONS:
                output = np.ravel(content["output"])
                assert np.isfinite(output).all(), told
                assert right is None or len(output) == size_of(operation, right), told
            return
        assert right is None, told
        assert response.status_code in (400, 404), told
        assert set(content["error"]) == {"type", "message"}, told

    fuzz(requests(), check, examples=150)
    print(f"{answered.total()} answered: {dict(answered)}")
    # A few examples need not meet every model.
    met = {name.split("@")[0] for name in answered}
    assert met == set(TAKES) if MINUTES else met
