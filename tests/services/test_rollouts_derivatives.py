"""Requests for derivatives before and after an engine: directions, weights, shapes."""

import io
import json

import numpy as np
import pytest

from services.rollouts.canonical import canonical
from services.rollouts.jacobian import Columns
from services.rollouts.request import from_json, from_npz
from services.rollouts.work import Limits
from spnode_core.errors import InvalidInput
from tests.services.test_rollouts_request import FORCED, PLAIN

LIMITS = Limits(rows=8, times=50, output_values=600)
INPUTS = {
    "x0": [[0.5, 1.0], [0.2, 1.5]],
    "parameters": [1.5],
    "controls": [[0.0, 0.1], [0.2, 0.3]],
    "control_times": [0.0, 1.0],
}


def fitted(operation, served=PLAIN, **fields):
    body = {"model": "m", "x0": [0.5, 1.0], "times": [1.0, 2.0], **fields}
    request = from_json(operation, json.dumps(body).encode())
    return canonical(request, served, LIMITS)


def from_members(operation, served=PLAIN, **members):
    buffer = io.BytesIO()
    np.savez(buffer, model="m", **members)
    return canonical(from_npz(operation, buffer.getvalue(), 10**6), served, LIMITS)


def product(columns, rows, matrix):
    """What an engine answers for ``x = matrix @ inputs``, a matrix for each row."""
    width = (columns.times, columns.width)
    matrix = np.repeat(matrix, columns.pieces, axis=0)
    x = np.zeros((len(matrix), *width))
    if "cotangents" in rows:
        ways = rows["cotangents"].reshape(*rows["cotangents"].shape[:2], -1)
        gradients, start = ways @ matrix, 0
        results = {"x": x}
        for name, shape in columns.shapes.items():
            stop = start + int(np.prod(shape))
            results[f"gradients.{name}"] = gradients[..., start:stop].reshape(
                *ways.shape[:2], *shape
            )
            start = stop
        return results
    ways = np.concatenate(
        [
            rows[f"tangents.{name}"].reshape(
                *rows[f"tangents.{name}"].shape[: -len(shape)], -1
            )
            for name, shape in columns.shapes.items()
        ],
        axis=-1,
    )
    tangents = np.einsum("rki,roi->rko", ways, matrix)
    return {"x": x, "tangents": tangents.reshape(*ways.shape[:2], *width)}


@pytest.mark.parametrize("states", [None, [2, 0]])
@pytest.mark.parametrize(
    ("times", "shapes", "reverse", "pieces"),
    [
        (5, {"x0": (3,), "parameters": (2,)}, False, 1),
        (40, {"x0": (3,), "controls": (10, 2)}, False, 2),
        (1, {"x0": (3,), "controls": (4, 2)}, True, 1),
        (12, {"x0": (3,), "controls": (50, 2)}, True, None),
    ],
)
def test_a_jacobian_is_assembled_from_its_directions(
    times, shapes, reverse, pieces, states
):
    columns = Columns(shapes, times, states, 3)
    assert columns.is_reverse is reverse
    assert pieces in (columns.pieces, None)
    matrix = np.random.default_rng(0).normal(size=(2, times * 3, columns.inputs))
    given = columns.rows({"x0": np.array([[1.0, 2, 3], [4, 5, 6]])}, 2)
    found = columns.assembled(product(columns, given, matrix))
    assert found["x"].shape == (2, times, 3)
    whole = matrix.reshape(2, times, 3, -1)
    whole = whole if states is None else whole[:, :, states]
    start = 0
    for name, shape in shapes.items():
        stop = start + int(np.prod(shape))
        expected = whole[..., start:stop].reshape(2, times, -1, *shape)
        np.testing.assert_allclose(found[f"jacobian.{name}"], expected, atol=1e-14)
        start = stop


def test_every_piece_of_a_jacobian_is_a_row_of_its_input():
    columns = Columns({"controls": (20, 2)}, 30, None, 2)
    x0 = np.array([[1.0, 2.0], [3.0, 4.0]])
    rows = columns.rows({"x0": x0}, 2)
    assert columns.pieces == 3
    np.testing.assert_array_equal(rows["x0"], np.repeat(x0, 3, axis=0))
    assert rows["tangents.controls"].shape == (6, 14, 20, 2)


def test_inputs_that_do_not_move_have_no_tangents():
    work, _ = fitted("jvp", FORCED, **INPUTS, tangents={"parameters": [1.0]})
    assert {name for name in work.rows if name.startswith("tangents")} == {
        "tangents.parameters"
    }
    np.testing.assert_array_equal(work.rows["tangents.parameters"], [[[1.0]]] * 2)


def test_a_jacobian_is_of_all_inputs_or_of_those_that_are_named():
    _, layout = fitted("jacobian", FORCED, **INPUTS)
    assert layout.columns.shapes == {"x0": (2,), "parameters": (1,), "controls": (2, 2)}
    _, layout = fitted("jacobian", FORCED, **INPUTS, inputs=["controls"])
    assert layout.columns.shapes == {"controls": (2, 2)}


def test_missing_observations_have_no_weight():
    work, _ = fitted(
        "objective",
        x0=[[0.5, 1.0]] * 2,
        objective={
            "kind": "misfit",
            "observations": [[1.0, None], [3.0, 4.0]],
            "weights": [5.0, 6.0],
        },
    )
    y, w = work.rows["observations"], work.rows["weights"]
    np.testing.assert_array_equal(y, [[[1.0, 0.0], [3.0, 4.0]]] * 2)
    np.testing.assert_array_equal(w, [[[5.0, 0.0], [5.0, 6.0]]] * 2)


def test_states_that_are_left_out_have_no_weight():
    work, _ = fitted(
        "objective",
        outputs={"states": ["b"], "times": "final"},
        objective={"kind": "misfit", "observations": [7.0]},
    )
    np.testing.assert_array_equal(work.rows["observations"], [[[0.0, 7.0]]])
    np.testing.assert_array_equal(work.rows["weights"], [[[0.0, 1.0]]])


@pytest.mark.parametrize(
    ("fields", "target", "weights"),
    [
        ({}, [[0, 0], [0, 0]], [[1, 1], [1, 1]]),
        ({"target": [1.0, 2.0]}, [[1, 2], [1, 2]], [[1, 1], [1, 1]]),
        ({"final_weights": [3.0, 4.0]}, [[0, 0], [0, 0]], [[0, 0], [3, 4]]),
        (
            {"weights": [1.0, 2.0], "final_weights": [3.0, 4.0]},
            [[0, 0], [0, 0]],
            [[1, 2], [3, 4]],
        ),
        ({"target": [[1.0, 2], [3, 4]]}, [[1, 2], [3, 4]], [[1, 1], [1, 1]]),
    ],
)
def test_a_quadratic_cost_has_its_weights_at_the_times(fields, target, weights):
    work, _ = fitted("objective", objective={"kind": "quadratic", **fields})
    np.testing.assert_array_equal(work.rows["observations"], [target])
    np.testing.assert_array_equal(work.rows["weights"], [weights])


def test_json_and_npz_give_the_same_work_for_every_derivative():
    x0, times = np.array([[0.5, 1.0], [0.2, 0.4]]), np.array([1.0, 2.0])
    cotangents = np.random.default_rng(0).normal(size=(2, 2, 2))
    cases = {
        "hvp": (
            {"cotangents": cotangents.tolist(), "tangents": {"x0": x0.tolist()}},
            {"cotangents": cotangents, "tangents.x0": x0},
        ),
        "jacobian": ({"inputs": ["x0"]}, {"inputs": '["x0"]'}),
        "objective": (
            {"objective": {"kind": "misfit", "observations": cotangents.tolist()}},
            {"objective.kind": "misfit", "objective.observations": cotangents},
        ),
    }
    for operation, (fields, members) in cases.items():
        one, _ = fitted(operation, x0=x0.tolist(), times=times.tolist(), **fields)
        other, _ = from_members(operation, x0=x0, times=times, **members)
        assert one.key == other.key
        assert one.rows.keys() == other.rows.keys()
        for name, array in one.rows.items():
            np.testing.assert_array_equal(array, other.rows[name])


SEEN = np.zeros((2, 2))


@pytest.mark.parametrize(
    ("operation", "members", "place", "said"),
    [
        ("hvp", {"cotangents": SEEN}, "tangents", "a direction"),
        ("hvp", {"tangents.x0": np.ones(2)}, "cotangents", "an array"),
        (
            "hvp",
            {"cotangents": SEEN[None], "tangents.x0": np.ones(2)},
            "cotangents",
            "the shape of",
        ),
        ("jacobian", {"inputs": '["parameters"]'}, "inputs[0]", "this version: x0"),
        ("jacobian", {"inputs": "x0"}, "inputs", "JSON"),
        ("objective", {}, "objective.kind", "'misfit' or"),
        ("objective", {"objective.kind": "cubic"}, "objective.kind", "'misfit' or"),
        (
            "objective",
            {"objective.kind": "misfit"},
            "objective.observations",
            "an array",
        ),
        (
            "objective",
            {"objective.kind": "quadratic", "objective.observations": SEEN},
            "objective.observations",
            "a quadratic has",
        ),
        (
            "objective",
            {"objective.kind": "misfit", "objective.observations": SEEN[:1]},
            "objective.observations",
            r"\(2, 2\)",
        ),
        (
            "objective",
            {
                "objective.kind": "misfit",
                "objective.observations": SEEN,
                "objective.weights": np.array([1.0, -1.0]),
            },
            "objective.weights[1]",
            "at least 0",
        ),
        (
            "objective",
            {"objective.kind": "misfit", "objective.observations": SEEN * np.nan},
            "objective.observations[0, 0]",
            "a finite number",
        ),
    ],
)
def test_what_does_not_fit_is_named(operation, members, place, said):
    with pytest.raises(InvalidInput, match=said) as caught:
        from_members(operation, x0=np.ones(2), times=np.array([1.0, 2.0]), **members)
    assert caught.value.field == place


def test_a_jacobian_that_exceeds_an_answer_is_refused():
    fields = {**INPUTS, "times": np.arange(1.0, 30.0).tolist()}
    with pytest.raises(InvalidInput, match="812 numbers") as caught:
        fitted("jacobian", FORCED, **fields)
    assert caught.value.field == "inputs"
    fitted("jacobian", FORCED, **fields, inputs=["parameters"])
