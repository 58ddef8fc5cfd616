"""Exports: the same rollout as the surrogate's, from files that need none of ours."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.export import deserialize
from models import MASS, random_states, small_surrogate

from spnode_core import export
from spnode_core.errors import ArtifactError, InvalidInput
from spnode_core.nonlinear.base import AbstractNonlinearOperator
from spnode_core.spec import (
    HurwitzSpec,
    LipschitzSpec,
    PolynomialSpec,
    RatesSpec,
    UniformStepsSpec,
)
from tests.exported import run_by_xla

TIMES = np.array([0.0, 0.3, 1.7, 3.0])
STIFF = {
    "linear": HurwitzSpec(rates=RatesSpec(minimum=0.5, maximum=20.0)),
    "steps": UniformStepsSpec(step=0.5),
}
KINDS = {
    "forced": {"parameters": 1, "controls": 2, "conserved": MASS},
    "imex": {"nonlinear": LipschitzSpec(), "integrator": "imex_ssp2", **STIFF},
}
# Networks in float64, and constants that XLA folds: some last bits differ.
TOLERANCE = 1e-13


def inputs_of(surrogate, rows):
    draws = np.random.default_rng(3)
    signature = surrogate.signature
    given = {"x0": random_states(rows, seed=4)}
    if signature.parameters:
        given["parameters"] = draws.uniform(0.5, 2, (rows, len(signature.parameters)))
    if signature.controls:
        given["controls"] = draws.uniform(-1, 1, (rows, 2, len(signature.controls)))
    return given


@pytest.fixture(scope="module", params=KINDS)
def exported(request, tmp_path_factory):
    surrogate = small_surrogate(**KINDS[request.param])
    switches = np.array([0.0, 0.5]) if surrogate.signature.controls else None
    folder = tmp_path_factory.mktemp("export") / "new" / request.param
    description = export(surrogate, folder, TIMES, control_times=switches, rows=(3,))
    return surrogate, switches, folder, description


def test_an_export_gives_the_rollout_for_any_number_of_rows(exported):
    surrogate, switches, folder, _ = exported
    loaded = deserialize(bytearray((folder / "rollout.jax").read_bytes()))
    assert loaded.platforms == ("cpu", "cuda")
    given = inputs_of(surrogate, 33)
    expected = surrogate.rollout(times=TIMES, control_times=switches, **given)
    for rows in (1, 33):
        found = loaded.call(*(each[:rows] for each in given.values()))
        assert found.dtype == np.float64
        np.testing.assert_allclose(
            found, expected[:rows], rtol=TOLERANCE, atol=TOLERANCE
        )


@pytest.mark.parametrize("suffix", ["mlirbc", "mlir"])
def test_xla_alone_runs_the_modules_of_fixed_rows(exported, suffix):
    surrogate, switches, folder, description = exported
    assert description["custom_calls"] == []
    given = inputs_of(surrogate, 3)
    found = run_by_xla((folder / f"rollout-3.{suffix}").read_bytes(), *given.values())
    expected = surrogate.rollout(times=TIMES, control_times=switches, **given)
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("exported", ["forced"], indirect=True)
def test_gradients_pass_through_an_export(exported):
    surrogate, switches, folder, _ = exported
    loaded = deserialize(bytearray((folder / "rollout.jax").read_bytes()))
    given = inputs_of(surrogate, 2)

    def own(given):
        return surrogate.rollout(times=TIMES, control_times=switches, **given).sum()

    # By name, since JAX sorts dictionaries.
    found = jax.grad(lambda each: loaded.call(*(each[name] for name in given)).sum())(
        given
    )
    expected = jax.grad(own)(given)
    for name in given:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-10, atol=1e-10)


def test_gradients_of_products_can_be_exported(tmp_path):
    surrogate = small_surrogate(nonlinear=PolynomialSpec(), **STIFF)
    assert export(surrogate, tmp_path / "made", [0.5], rows=())["custom_calls"] == []


def test_the_description_says_all_that_a_host_must_know(exported):
    surrogate, switches, folder, description = exported
    assert json.loads((folder / "export.json").read_text()) == json.loads(
        json.dumps(description)
    )
    given = inputs_of(surrogate, 3)
    assert [each["name"] for each in description["inputs"]] == list(given)
    for each in description["inputs"]:
        assert each["shape"] == ["rows", *given[each["name"]].shape[1:]]
        assert each["dtype"] == "float64"
    assert description["outputs"][0]["shape"] == ["rows", 4, 3]
    assert description["outputs"][0]["columns"] == ["a", "b", "c"]
    assert description["times"] == TIMES.tolist()
    assert description["control_times"] == (None if switches is None else [0.0, 0.5])
    assert {*description["sha256"], "export.json"} == {
        path.name for path in folder.iterdir()
    }


def test_the_same_surrogate_gives_the_same_bytes_without_paths(tmp_path):
    surrogate = small_surrogate()
    one = export(surrogate, tmp_path / "one", TIMES, rows=(2,))
    (tmp_path / "two").mkdir()
    two = export(surrogate, tmp_path / "two", TIMES, rows=(2,), origin={"model": "a"})
    assert one["sha256"] == two["sha256"]
    assert two["origin"] == {"model": "a"}
    for path in (tmp_path / "one").iterdir():
        assert b"rollout.py" not in path.read_bytes(), path


def test_the_models_own_grid_is_exported_where_no_times_are_given(tmp_path):
    surrogate = small_surrogate()
    description = export(surrogate, tmp_path / "own", rows=())
    np.testing.assert_array_equal(description["times"], surrogate.grid.times)
    assert not list((tmp_path / "own").glob("*.mlir*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"times": [0.0, 2.0, 1.0]}, r"times\[2\].*increasing"),
        ({"times": [0.0, 2.0, 2.0]}, r"times\[2\].*increase strictly"),
        ({"times": [-1.0, 2.0]}, r"times\[0\].*at least 0"),
        ({"times": [0.0, np.nan]}, r"times\[1\].*finite"),
        ({"times": [[0.0], [1.0]]}, "times.*one list for all rows"),
        ({"times": []}, "at least one time"),
        ({"times": ["soon"]}, "times.*numbers"),
        ({"rows": (0,)}, r"rows\[0\].*above 0"),
        ({"control_times": [0.0]}, "control_times.*no controls"),
    ],
)
def test_what_cannot_be_exported_is_named_and_nothing_is_written(
    tmp_path, options, message
):
    with pytest.raises(InvalidInput, match=message):
        export(small_surrogate(), tmp_path / "none", **{"times": TIMES, **options})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InvalidInput, match="new or empty folder"):
        export(small_surrogate(), tmp_path, TIMES)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


class CallsPython(AbstractNonlinearOperator):
    def __call__(self, inputs):
        shape = jax.ShapeDtypeStruct((5,), np.float64)
        return jax.pure_callback(lambda z: np.tanh(z[:5]), shape, inputs)


def test_a_model_that_calls_python_is_refused(tmp_path):
    surrogate = eqx.tree_at(
        lambda s: s.dynamics.nonlinear, small_surrogate(), CallsPython()
    )
    with pytest.raises(InvalidInput, match=r"surrogate.*call.*back into Python"):
        export(surrogate, tmp_path / "none", TIMES)


def test_a_rollout_that_leaves_the_finite_range_is_no_export(tmp_path):
    surrogate = small_surrogate(nonlinear=PolynomialSpec(), **STIFF)
    grown = eqx.tree_at(
        lambda s: s.dynamics.nonlinear.coefficients,
        surrogate,
        jnp.full_like(surrogate.dynamics.nonlinear.coefficients, 1e6),
    )
    with pytest.raises(ArtifactError, match="not finite"):
        export(grown, tmp_path / "none", [200.0], rows=())


def test_a_model_that_factors_matrices_as_it_goes_is_for_jax_only(tmp_path):
    fields = {**STIFF, "nonlinear": LipschitzSpec(), "integrator": "rodas4"}
    surrogate = small_surrogate(**fields)
    with pytest.raises(InvalidInput, match=r"rows.*lapack_dgetrf.*only JAX"):
        export(surrogate, tmp_path / "none", [0.5], rows=(1,))
    description = export(surrogate, tmp_path / "jax", [0.5])
    assert description["rows"] == []
    assert "lapack_dgetrf_ffi" in description["custom_calls"]


def test_propagators_too_large_for_a_file_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("spnode_core.stablehlo.MOST_CONSTANT_BYTES", 10)
    with pytest.raises(InvalidInput, match=r"times.*propagators take"):
        export(small_surrogate(), tmp_path / "none", TIMES)
