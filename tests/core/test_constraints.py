"""Scalings invert, and decoded states obey their sums and signs for any output."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spnode_core.constraints import HEADROOM, Positive, create_constraint
from spnode_core.data_report import choose_kind
from spnode_core.errors import InvalidInput
from spnode_core.normaliser import fit_scaling, picked
from spnode_core.spec import SurrogateSpec

NAMES = ("a", "b", "c", "d")
DATA = np.array([[0.0, 1e-9, 1e-3, -2.0], [1.0, 3e-5, 1.1, 5.0]])
SIZES = np.abs(DATA).max(axis=0)


def test_unscaled_columns_are_left_as_they_are():
    values = np.array([[-3.0, 1e-7], [5.0, 2e-7]])
    scaling = fit_scaling(values, ["none", "linear"])
    normalised = np.asarray(scaling.normalise(jnp.asarray(values[1])))
    np.testing.assert_allclose(normalised, [5.0, 1.0])


def test_bounded_states_need_a_scale():
    with pytest.raises(ValueError, match="scale them"):
        SurrogateSpec(positive=True, normalisation={"a": "none"})


@pytest.mark.parametrize("kinds", [["linear"] * 4, ["linear", "log", "log", "asinh"]])
def test_scaling_maps_the_data_to_one_and_back(kinds):
    scaling = fit_scaling(DATA, kinds)
    for row, edge in zip(DATA, (-1.0, 1.0), strict=True):
        v = scaling.normalise(jnp.asarray(row))
        np.testing.assert_allclose(v, edge, rtol=1e-12)
        np.testing.assert_allclose(scaling.restore(v), row, rtol=1e-12, atol=1e-18)


@pytest.mark.parametrize(
    "chosen",
    [[], [2], [0, 1, 2], [0, 2, 3], [3, 0, 1], [4, 3, 2, 1, 0], list(range(0, 40, 2))],
)
def test_columns_are_those_chosen_and_so_is_the_way_back(chosen):
    values = jnp.arange(40.0) ** 2
    weights = jnp.arange(1.0, len(chosen) + 1)
    np.testing.assert_array_equal(picked(values, chosen), np.asarray(values)[chosen])
    back = jax.grad(lambda v: jnp.sum(weights * picked(v, chosen)))(values)
    expected = np.zeros(40)
    expected[chosen] = weights
    np.testing.assert_array_equal(back, expected)


def test_a_tiny_species_is_scaled_like_any_other():
    scaling = fit_scaling(1e-17 * DATA[:, :1])
    np.testing.assert_allclose(scaling.normalise(jnp.array([5e-18])), [0.0], atol=1e-15)


def test_a_column_that_never_moves_is_scaled_by_its_own_size():
    scaling = fit_scaling(np.array([[3.0, 0.0], [3.0, 0.0]]))
    np.testing.assert_array_equal(scaling.normalise(jnp.array([3.0, 0.0])), [0.0, 0.0])
    np.testing.assert_allclose(scaling.normalise(jnp.array([6.0, 1.0])), [1.0, 1.0])


def test_rounding_is_not_blown_up_to_the_size_of_a_signal():
    noise = np.array([[1 - 1e-16], [1 + 1e-15], [1.0]])
    np.testing.assert_allclose(fit_scaling(noise).scale, 1.0)
    small = 1 + 1e-6 * np.array([[-1.0], [0.5], [1.0]])
    np.testing.assert_allclose(fit_scaling(small).scale, 1e-6, rtol=1e-6)
    np.testing.assert_allclose(fit_scaling(small, still=1e-3).scale, 1.0)


def test_kinds_follow_the_data():
    assert choose_kind(np.logspace(-9, 0, 50)) == "log"
    assert choose_kind(np.linspace(0, 1, 50)) == "linear"
    signed = np.concatenate([np.linspace(-1, 1, 100), [1e5]])
    assert choose_kind(signed) == "asinh"
    assert choose_kind(np.full(3, np.nan)) == "linear"


def test_conserved_sums_hold_to_rounding_for_any_output():
    sums = np.array([[1.0, 1.0, 1.0, 0.0], [0.0, 2.0, 0.0, -1.0]])
    constraint = create_constraint(sums, positive=False, sizes=SIZES, names=NAMES)
    scaling = fit_scaling(DATA, ["linear"] * 4)
    wanted = jnp.array([1.05, -3.0])
    rng = np.random.default_rng(0)
    for _ in range(20):
        outputs = jnp.asarray(10 * rng.normal(size=len(constraint.free)))
        x = constraint.states(outputs, wanted, scaling)
        np.testing.assert_allclose(sums @ x, wanted, atol=1e-13 * np.abs(x).max())
        free = np.array(constraint.free)
        restored = scaling.take(constraint.free).restore(outputs)
        np.testing.assert_allclose(x[free], restored)


@pytest.mark.parametrize(
    "kinds",
    [["linear"] * 4, ["linear"] * 3 + ["log"], ["asinh", "log", "log", "asinh"]],
)
def test_positive_states_stay_positive_bounded_and_conserving(kinds):
    data = np.abs(DATA) + 1e-12
    sums = np.array([[1.0, 1.0, 1.0, 0.0]])
    constraint = create_constraint(sums, positive=True, sizes=SIZES, names=NAMES)
    assert isinstance(constraint, Positive)
    assert constraint.groups == ((1, 0, 2),)
    scaling = fit_scaling(data, kinds)
    rng = np.random.default_rng(0)
    for _ in range(50):
        outputs = jnp.asarray(30 * rng.normal(size=len(constraint.free)))
        x = constraint.states(outputs, jnp.array([1.05]), scaling)
        assert (x >= 0).all()
        np.testing.assert_allclose(sums @ x, [1.05], rtol=1e-14)
        largest = {"linear": HEADROOM * data[:, 1].max(), "log": 1.05}[kinds[1]]
        assert x[1] <= largest * (1 + 1e-12)
        assert x[3] <= HEADROOM * data[:, 3].max() * (1 + 1e-12) or kinds[3] == "log"


def test_sums_that_cannot_be_kept_are_refused():
    both = np.array([[1.0, 1.0, 0.0, 0.0], [2.0, 2.0, 0.0, 0.0]])
    with pytest.raises(InvalidInput, match="depend on each other"):
        create_constraint(both, positive=False, sizes=SIZES, names=NAMES)
    with pytest.raises(InvalidInput, match="disjoint sums with positive"):
        create_constraint(both, positive=True, sizes=SIZES, names=NAMES)
