"""Sweeps: a few axes that stand for the rows of a grid."""

import json

import jax
import numpy as np
import pytest

from services.rollouts.canonical import canonical
from services.rollouts.encoding import to_npz
from services.rollouts.request import from_json, from_npz
from services.rollouts.served import Served
from services.rollouts.sweep import grid_of
from services.rollouts.wire import Sweep
from services.rollouts.work import Limits
from spnode_core.errors import InvalidInput
from tests.core.models import small_surrogate

LIMITS = Limits(rows=100, times=10, output_values=10_000)
SWEEP = {
    "x0": {"c": [0.1, 0.2]},
    "parameters": {"p1": {"start": 0.5, "stop": 2.0, "count": 3, "spacing": "log"}},
}
BODY = {"model": "m", "x0": [1.0, 2.0, 3.0], "parameters": [7.0, 8.0], "times": [1.0]}


@pytest.fixture(scope="module")
def served() -> Served:
    with jax.enable_x64():
        surrogate = small_surrogate(parameters=2)
    return Served("m", 1, "0" * 64, surrogate.signature, surrogate.spec)


def asked(operation="rollout", **fields):
    return from_json(operation, json.dumps({**BODY, **fields}).encode())


def test_a_sweep_is_every_combination_with_the_last_axis_fastest(served) -> None:
    work, layout = canonical(asked(sweep=SWEEP), served, LIMITS)
    assert (work.count, layout.grid.shape) == (6, (3, 2))
    np.testing.assert_allclose(
        work.rows["parameters"], [[7.0, p] for p in (0.5, 1.0, 2.0) for _ in range(2)]
    )
    np.testing.assert_array_equal(
        work.rows["x0"], [[1.0, 2.0, c] for _ in range(3) for c in (0.1, 0.2)]
    )
    described = layout.grid.describe()
    assert described["shape"] == [3, 2]
    assert [axis["name"] for axis in described["axes"]] == ["p1", "c"]
    assert described["axes"][1] == {"field": "x0", "name": "c", "values": [0.1, 0.2]}


def test_axes_that_go_side_by_side_are_one_axis(served) -> None:
    sweep = {"combine": "zip", "x0": {"a": [1, 2, 3], "b": [4.0, 5.0, 6.0]}}
    work, layout = canonical(asked(sweep=sweep), served, LIMITS)
    assert layout.grid.shape == (3,)
    np.testing.assert_array_equal(work.rows["x0"], [[1, 4, 3], [2, 5, 3], [3, 6, 3]])


def test_rows_of_a_grid_are_made_from_their_numbers(served) -> None:
    arrays = {"x0": np.zeros(3), "parameters": np.zeros(2)}
    axes = {name: np.arange(1.0, 6.0).tolist() for name in ("a", "b", "c")}
    grid = grid_of(Sweep.model_validate({"x0": axes}), arrays, served.signature, 10**9)
    assert grid.count == 125
    whole = grid.rows(0, 125)["x0"]
    pieces = [grid.rows(i, min(i + 7, 125))["x0"] for i in range(0, 125, 7)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    assert len({tuple(row) for row in whole}) == 125
    spaced = {name: {"start": 0.0, "stop": 1.0, "count": 1000} for name in axes}
    huge = grid_of(
        Sweep.model_validate({"x0": spaced}), arrays, served.signature, 10**9
    )
    assert huge.rows(10**9 - 1, 10**9)["x0"].tolist() == [[1.0, 1.0, 1.0]]


def test_what_is_swept_as_a_whole_need_not_be_given(served) -> None:
    sweep = {"parameters": {"p0": [1.0, 2.0], "p1": [3.0]}}
    body = {**BODY, "sweep": sweep}
    del body["parameters"]
    work, _ = canonical(from_json("rollout", json.dumps(body).encode()), served, LIMITS)
    assert work.rows["parameters"].tolist() == [[1.0, 3.0], [2.0, 3.0]]


def test_derivatives_take_the_rows_of_a_sweep(served) -> None:
    sweep = {"parameters": {"p0": [1.0, 2.0]}}
    cotangents = np.ones((2, 1, 3)).tolist()
    work, _ = canonical(
        asked("vjp", sweep=sweep, cotangents=cotangents), served, LIMITS
    )
    assert work.rows["cotangents"].shape == (2, 1, 1, 3)


def test_a_sweep_in_a_file_is_json(served) -> None:
    members = {**BODY, "sweep": json.dumps(SWEEP)}
    arrays = {k: np.array(v) if isinstance(v, list) else v for k, v in members.items()}
    request = from_npz("rollout", to_npz(arrays), 2**20)
    work, _ = canonical(request, served, LIMITS)
    assert work.count == 6


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"sweep": {}}, "sweep: found nothing to go through"),
        (
            {"sweep": {"x0": {"q": [1.0]}}},
            "/sweep/x0/q: found 'q'; expected one of a, b",
        ),
        ({"sweep": {"x0": {"a": []}}}, "/sweep/x0/a: found 0 values"),
        (
            {"sweep": {"x0": {"a": {"start": 1.0, "stop": 2.0, "count": 101}}}},
            "/sweep/x0/a: found 101 values; expected at least 1 and at most 100",
        ),
        (
            {"sweep": {"x0": {n: [0.0] * 11 for n in "ab"}}},
            "sweep: found 11 x 11 = 121 rows; expected at most 100",
        ),
        (
            {
                "sweep": {
                    "x0": {"a": {"start": 0.0, "stop": 1, "count": 3, "spacing": "log"}}
                }
            },
            "/sweep/x0/a/start: found 0.0; expected above 0",
        ),
        (
            {"sweep": {"combine": "zip", "x0": {"a": [1.0], "b": [1.0, 2.0]}}},
            "/sweep/x0/b: found 2 values; expected 1, as a has",
        ),
        (
            {"sweep": {"x0": {"a": [1.0]}}, "x0": [[1.0, 2.0, 3.0]]},
            r"x0: found an array of shape \(1, 3\); expected 3 states",
        ),
        (
            {"sweep": {"parameters": {"p0": [1.0]}}, "parameters": None},
            "parameters: found nothing; expected 2 parameters, since the sweep leaves p1",
        ),
    ],
)
def test_a_sweep_that_is_none_is_named(served, fields, said) -> None:
    with pytest.raises(InvalidInput, match=said):
        canonical(asked(**fields), served, LIMITS)
