"""Certificates claim what is true: of the whole domain, of bounds beyond float64."""

import dataclasses
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import LOWER, RATES, UPPER, small_surrogate

from spnode_core.spec import (
    FixedSpec,
    HurwitzSpec,
    MLPSpec,
    ModalSpec,
    SymbolSpec,
)


@pytest.mark.parametrize("kind", [ModalSpec, HurwitzSpec])
def test_a_shifted_operator_is_not_stable_by_construction(kind):
    unstable = small_surrogate(linear=kind(rates=RATES, shift=1.0), nonlinear=MLPSpec())
    found = unstable.certificate()["spectral_abscissa"]
    assert not found["holds"]
    assert not found["by_construction"]
    assert "does not decay" in found["statement"]
    values = np.array(found["eigenvalues"])
    assert values[0, 0] == pytest.approx(found["value"])
    assert (np.diff(values[:, 0]) <= 0).all()
    stable = small_surrogate(linear=kind(rates=RATES)).certificate()
    assert stable["spectral_abscissa"]["by_construction"]


def test_a_given_matrix_is_stable_only_beyond_rounding():
    rows = ((-1e6, 1e6, 0.0), (0.0, -1e6, 1e6), (0.0, 0.0, -1e-14))
    linear = FixedSpec(matrix=rows)
    surrogate = small_surrogate(linear=linear, nonlinear=MLPSpec(), latent=3)
    found = surrogate.certificate()["spectral_abscissa"]
    assert found["value"] < 0
    assert not found["holds"]
    # It may well decay: that is not known, and nothing else is said.
    assert found["statement"].startswith("It is not proved that the linear part")


def test_the_box_holds_where_the_domain_is_wider_than_the_scaling():
    surrogate = small_surrogate()
    wide = surrogate.signature.domain.model_copy(
        update={"lower": tuple(-50 * UPPER), "upper": tuple(50 * UPPER)}
    )
    signature = surrogate.signature.model_copy(update={"domain": wide})
    surrogate = dataclasses.replace(surrogate, signature=signature)
    corners = itertools.product(*zip(-50 * UPPER, 50 * UPPER, strict=True))
    z = jax.vmap(lambda x: surrogate.encode(x, jnp.zeros(0)))(jnp.array([*corners]))
    bound = surrogate.certificate()["invariant_box"]["latent_bound"]
    assert (np.abs(z).max(axis=0) <= bound).all()


def test_rates_are_slowest_at_a_corner_of_the_parameters():
    linear = ModalSpec(rates=RATES, depends_on_parameters=True)
    surrogate = small_surrogate(parameters=1, linear=linear)
    moved = eqx.tree_at(
        lambda s: s.dynamics.linear.sensitivity, surrogate, jnp.full((5, 1), -0.7)
    )
    found = moved.certificate()["spectral_abscissa"]
    assert found["value"] == pytest.approx(-RATES.minimum * np.exp(-0.7))
    assert found["assumptions"] == ["parameters inside the training box"]


def test_a_bound_beyond_float64_leaves_the_others_as_they_are():
    sums = {"first": {"a": 1.0, "b": 1.0}, "second": {"c": 1.0}}
    surrogate = small_surrogate(conserved=sums)
    huge = eqx.tree_at(
        lambda s: s.autoencoder.decoder_matrix,
        surrogate,
        1e308 * jnp.ones_like(surrogate.autoencoder.decoder_matrix),
    )
    states = huge.certificate()["invariant_box"]["states"]
    assert states["a"] == states["b"] == [None, None]
    assert states["c"] == [pytest.approx(0.9), pytest.approx(1.1)]


def test_bounds_that_say_nothing_of_a_state_are_said_to():
    wide = small_surrogate()
    matrix = wide.autoencoder.decoder_matrix
    for row, is_vacuous in ((slice(1, 2), False), (slice(None), True)):
        huge = eqx.tree_at(
            lambda s: s.autoencoder.decoder_matrix,
            wide,
            matrix.at[row].set(1e12),
        )
        found = huge.certificate()["invariant_box"]
        assert found["holds"]
        assert found["is_vacuous"] == is_vacuous
        names = "a, b, c" if is_vacuous else "b"
        assert (
            f"the bounds in physical units of {names} are vacuous" in found["statement"]
        )
    assert "vacuous" not in wide.certificate()["invariant_box"]["statement"]


def test_positive_states_are_bounded_on_any_scale_and_for_any_sum():
    sums = {"mass": {"a": 1.0, "b": 1.0, "c": 1.0}}
    surrogate = small_surrogate(conserved=sums, positive=True)
    domain = surrogate.signature.domain.model_copy(update={"conserved_lower": (-0.2,)})
    signature = surrogate.signature.model_copy(update={"domain": domain})
    surrogate = dataclasses.replace(surrogate, signature=signature)
    bounds = np.array(list(surrogate.certificate()["invariant_box"]["states"].values()))
    x0 = np.array([LOWER, [0.4, 1e-5, 0.6], [-0.1, 0.0, -0.05], UPPER / 2])
    x = np.asarray(surrogate.rollout(x0, [0.1, 10.0, 1e3]))
    assert (x >= bounds[:, 0]).all()
    assert (x <= bounds[:, 1]).all()


def test_a_model_too_large_for_dense_matrices_says_so():
    linear = SymbolSpec(length=22.0, coefficients=(0.0, 0.0, -1.0, 0.0, -1.0))
    large = small_surrogate(latent=512, linear=linear, nonlinear=MLPSpec())
    found = large.certificate()
    waves = 2 * np.pi / 22 * np.arange(12)
    expected = (waves**2 - waves**4).max()
    assert found["spectral_abscissa"]["value"] == pytest.approx(expected)
    assert not found["lipschitz"]["holds"]
    assert "up to 256 latent variables" in found["lipschitz"]["statement"]
