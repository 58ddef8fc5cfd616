"""What requests that are alike share: their layout, and one look over their batch."""

import asyncio
import dataclasses
import gc
import json
import weakref

import numpy as np
import pytest

from services.errors import RolloutFailed
from services.rollouts.answer import answer
from services.rollouts.canonical import canonical
from services.rollouts.request import from_json
from services.rollouts.wire import JacobianOptions, Options, Outputs
from spnode_core.errors import InvalidInput
from tests.services.held_executors import Doubling, batcher, started
from tests.services.test_rollouts_request import FORCED, LIMITS, PLAIN, UNSURE

ROWS = np.random.default_rng(0).uniform(0.1, 0.9, (3, 2)).tolist()
SPACED = {"start": 0.0, "stop": 4.0, "count": 5}
FORCES = {"parameters": [1.5], "controls": [[0.5, -0.5]], "control_times": [0.0]}
TWICE = {"controls": [[0.5, 0.0]] * 2, "control_times": [0.0, 2.0]}
ASKED = [
    (PLAIN, "rollout", {}),
    (PLAIN, "rollout", {"x0": ROWS}),
    (PLAIN, "rollout", {"x0": ROWS[:1]}),
    (PLAIN, "rollout", {"times": [1.0, 3.0]}),
    (PLAIN, "rollout", {"times": SPACED}),
    (PLAIN, "rollout", {"times": SPACED | {"stop": 5.0}}),
    (PLAIN, "rollout", {"times": {"dt": 0.5, "steps": 4}}),
    (PLAIN, "rollout", {"outputs": {"times": "final"}}),
    (PLAIN, "rollout", {"outputs": {"states": ["b"]}}),
    (PLAIN, "rollout", {"outputs": {"states": ["b", "a"]}}),
    (PLAIN, "rollout", {"outputs": {"latent": True}}),
    (PLAIN, "rollout", {"mode": "throughput"}),
    (PLAIN, "rollout", {"precision": "float64"}),
    (PLAIN, "rollout", {"sweep": {"x0": {"a": [0.1, 0.2]}}}),
    (PLAIN, "rollout", {"sweep": {"x0": {"a": [0.1, 0.3]}}}),
    (UNSURE, "rollout", {"intervals": 0.5}),
    (UNSURE, "rollout", {"intervals": 0.9}),
    (FORCED, "rollout", FORCES),
    (FORCED, "rollout", FORCES | {"parameters": [[1.5], [1.6]]}),
    (FORCED, "rollout", FORCES | TWICE),
    (FORCED, "rollout", FORCES | TWICE | {"control_times": [0.0, 3.0]}),
    (FORCED, "jacobian", FORCES),
    (FORCED, "jacobian", FORCES | {"inputs": ["parameters"]}),
    (PLAIN, "jvp", {"tangents": {"x0": [1.0, 0.0]}}),
    (PLAIN, "jvp", {"tangents": {"x0": [[1.0, 0.0]] * 2}}),
    (PLAIN, "vjp", {"cotangents": [[1.0, 0.0]] * 2}),
    (PLAIN, "vjp", {"cotangents": [[[1.0, 0.0]] * 2] * 3}),
]


def requested(operation, fields, x0=(0.5, 1.0)):
    body = {"model": "m", "x0": list(x0), "times": [1.0, 2.0], **fields}
    return from_json(operation, json.dumps(body).encode())


def told(work, layout):
    """All of both, so that two of them can be compared."""
    arrays = {
        name: (array.shape, array.tobytes())
        for name, array in {**work.rows, **work.shared, "at": layout.times}.items()
    }
    rest = (work.key, work.expected_bytes, work.count, work.variant, work.operation)
    others = dataclasses.replace(layout, times=None, columns=None, grid=None)
    return arrays, rest, others, repr(layout.columns), repr(layout.grid)


def test_a_request_like_others_before_is_made_as_if_it_were_the_first():
    PLAIN.known.clear()
    for x0 in ((0.5, 1.0), (0.2, 0.3), (0.2, 0.3)):
        for served, operation, fields in ASKED:
            request = requested(operation, fields, x0)
            found = canonical(request, served, LIMITS)
            alone = canonical(request, dataclasses.replace(served), LIMITS)
            assert told(*found) == told(*alone), fields
    assert len(PLAIN.known) == sum(
        served is PLAIN and "sweep" not in fields for served, _, fields in ASKED
    )


def test_a_version_is_let_go_of_with_what_is_known_of_it():
    # At once: full collections are rare, and versions are looked up every few seconds.
    gc.disable()
    try:
        served = dataclasses.replace(PLAIN)
        for _ in range(2):
            canonical(requested("rollout", {}), served, LIMITS)
        assert served.known
        left = weakref.ref(served)
        del served
        assert left() is None
    finally:
        gc.enable()


def test_limits_hold_for_requests_that_were_known_with_others():
    request = requested("rollout", {"x0": ROWS})
    canonical(request, PLAIN, LIMITS)
    with pytest.raises(InvalidInput, match="3 rows"):
        canonical(request, PLAIN, LIMITS._replace(rows=2))


def test_what_is_known_of_a_version_does_not_grow_for_ever():
    served = dataclasses.replace(PLAIN)
    for last in range(1, 200):
        canonical(requested("rollout", {"times": [float(last)]}), served, LIMITS)
        assert len(served.known) <= 32
    known = len(served.known)
    many = LIMITS._replace(times=10**5, output_values=10**9)
    for fields in (
        {"times": {"dt": 1e-4, "steps": 65535}},
        {"times": np.arange(1.0, 1000.0).tolist()},
        {"outputs": {"states": ["a", "b"] * 1000}},
    ):
        canonical(requested("rollout", fields), served, many)
    assert len(served.known) == known, "what is large is made each time"


def test_every_option_is_told_apart_or_known_not_to_matter():
    options = {*Options.model_fields, *JacobianOptions.model_fields}
    told = {"mode", "precision", "intervals", "spread", "inputs", "outputs"}
    # By the version; not remembered; of the answer alone.
    assert options - told == {"model", "sweep", "on_error"}
    assert set(Outputs.model_fields) == {"times", "states", "latent", "domain"}


@pytest.mark.parametrize("odd", [(0.5, 5.0), (np.nan, 1.0)])
def test_what_is_odd_in_a_batch_is_told_to_those_that_it_is_of(odd):
    asked = [requested("rollout", {}, x0) for x0 in ((0.6, 0.8), (0.5, 1.0))]
    works = [canonical(each, PLAIN, LIMITS) for each in asked]
    works[1][0].rows["x0"][:] = odd

    async def computed():
        executor = Doubling()
        executor.gate.clear()
        batches = batcher(executor)
        first, *tasks = await started(batches, works[0][0], *(w for w, _ in works))
        executor.gate.set()
        results = await asyncio.gather(first, *tasks)
        assert len(executor.batches[1].arrays["x0"]) == 2
        return results

    # The first one ran alone, and everything of it is as it should be.
    plain, *shared = asyncio.run(computed())
    assert plain.plain
    assert not any(each.plain for each in shared)

    def answered(results, number):
        x = np.repeat(results["x"], 2, axis=1)
        parts = (asked[number], PLAIN, *works[number], {"x": x})
        return answer(*parts, plain=results.plain)

    assert answered(plain, 0)["domain"]["inside"] == [True]
    assert answered(shared[0], 0)["domain"]["inside"] == [True]
    if np.isnan(odd[0]):
        with pytest.raises(RolloutFailed):
            answered(shared[1], 1)
    else:
        assert answered(shared[1], 1)["domain"]["inside"] == [False]
