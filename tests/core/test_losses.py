"""The loss against its formula, its weights, and what missing samples do to it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spnode_core.dataset import check_arrays
from spnode_core.rollout import rollout
from spnode_core.samples import build_problem, time_weights
from spnode_core.spec import (
    NoAutoencoderSpec,
    RelaxationSpec,
    ResidualSpec,
    SurrogateSpec,
)
from spnode_core.training.initialise import create_surrogate
from spnode_core.training.losses import training_loss
from spnode_core.training.presets import resolve

TIMES = np.append(0.0, np.geomspace(1e-3, 10, 9))


def data(**more):
    random = np.random.default_rng(0)
    states = random.uniform(0.5, 1.5, (6, 10, 2))
    return check_arrays({"states": states, "times": TIMES, **more})


def untrained(dataset, **fields):
    # In float64, so that compiled and plain rollouts agree beyond single precision.
    spec = SurrogateSpec(
        latent=3,
        nonlinear=RelaxationSpec(width=4, depth=1),
        precision="float64",
        **fields,
    )
    return create_surrogate(dataset, resolve(dataset, spec)[0], seed=1)


@pytest.fixture(scope="module")
def surrogate():
    return untrained(data(), autoencoder=ResidualSpec(width=4, depth=1))


def loss_of(surrogate, dataset, *, loss="uniform", refine=1, reconstruction=0.0):
    problem = build_problem(dataset, surrogate, loss=loss, refine=refine)
    return float(training_loss(surrogate, problem, reconstruction=reconstruction))


def scaled_errors(surrogate, dataset):
    states = np.asarray(surrogate.rollout(dataset.states[:, 0], TIMES))
    scaling = surrogate.normaliser.states
    return (states - dataset.states) / np.asarray(scaling.scale)


def test_uniform_loss_is_the_mean_squared_scaled_error(surrogate):
    expected = np.mean(scaled_errors(surrogate, data()) ** 2)
    assert loss_of(surrogate, data()) == pytest.approx(expected, rel=1e-12)


def test_refined_loss_is_the_mean_over_both_grids(surrogate):
    fine = surrogate.grid.refined(2)
    errors = []
    for grid in (surrogate.grid, fine):
        plan = grid.plan(TIMES)
        states = rollout(surrogate, jnp.asarray(data().states[:, 0]), plan)
        scale = np.asarray(surrogate.normaliser.states.scale)
        errors.append(np.mean(((np.asarray(states) - data().states) / scale) ** 2))
    assert errors[0] != errors[1]
    expected = np.mean(errors)
    assert loss_of(surrogate, data(), refine=2) == pytest.approx(expected, rel=1e-12)


def test_missing_samples_have_no_part_in_the_loss(surrogate):
    mask = np.ones((6, 10, 2), bool)
    mask[2, 4, 1] = mask[3, 7:] = False
    masked = data(mask=mask)
    squares = scaled_errors(surrogate, data()) ** 2
    expected = np.mean([s[m].mean() for s, m in zip(squares, mask, strict=True)])
    assert loss_of(surrogate, masked) == pytest.approx(expected, rel=1e-12)


def test_gradient_of_a_masked_loss_is_finite(surrogate):
    mask = np.ones((6, 10), bool)
    mask[:, 5] = False
    problem = build_problem(data(mask=mask), surrogate, loss="log_dt", refine=2)
    gradient = eqx.filter_jit(eqx.filter_grad(training_loss))(surrogate, problem)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))


def test_reconstruction_is_free_without_an_autoencoder():
    dataset = data()
    spec = SurrogateSpec(autoencoder=NoAutoencoderSpec())
    plain = create_surrogate(dataset, resolve(dataset, spec)[0], seed=0)
    assert loss_of(plain, dataset, reconstruction=5.0) == pytest.approx(
        loss_of(plain, dataset), rel=1e-12
    )


def test_reconstruction_adds_the_error_of_decoding_what_was_encoded(surrogate):
    x = jnp.asarray(data().states)
    none = jnp.zeros(0)

    def reconstruct(state):
        return surrogate.decode(surrogate.encode(state, none), none, none)

    again = jax.vmap(jax.vmap(reconstruct))(x)
    scale = np.asarray(surrogate.normaliser.states.scale)
    expected = np.mean(((np.asarray(again) - data().states) / scale) ** 2)
    difference = loss_of(surrogate, data(), reconstruction=2.0) - loss_of(
        surrogate, data()
    )
    assert difference == pytest.approx(2 * expected, rel=1e-9)


def test_log_dt_is_uniform_on_a_logarithmic_grid_and_dt_is_the_integral():
    log_dt = time_weights(TIMES[None], "log_dt")[0]
    assert np.ptp(log_dt) < 1e-12 * log_dt.max()
    dt = time_weights(TIMES[None], "dt")[0]
    assert dt.sum() == pytest.approx(TIMES[-1])
    assert dt @ TIMES == pytest.approx(TIMES[-1] ** 2 / 2, rel=0.2)


@pytest.mark.parametrize("loss", ["dt", "log_dt"])
def test_weights_are_those_of_the_samples_that_are_there(surrogate, loss):
    mask = np.ones((6, 10), bool)
    mask[1, 3] = mask[2, 6:] = False
    ragged = build_problem(data(mask=mask), surrogate, loss=loss, refine=1)
    for row in (0, 1, 2):
        alone = time_weights(TIMES[None, mask[row]], loss)[0]
        found = np.asarray(ragged.samples.weight[row, :, 0])
        assert (found[~mask[row]] == 0).all()
        np.testing.assert_allclose(found[mask[row]], alone / alone.sum() / 2)


def test_relative_loss_weighs_small_states_like_large_ones():
    states = np.tile(np.array([1.0, 0.1])[:, None, None], (1, 10, 1))
    states = states * (1 + 0.01 * np.arange(10))[None, :, None]
    dataset = check_arrays({"states": states, "times": TIMES})
    surrogate = untrained(dataset)
    weight = build_problem(dataset, surrogate, loss="relative", refine=1)
    # Within one trajectory weights follow 1 / x^2, up to the floor of 1e-3.
    ratio = np.asarray(weight.samples.weight[0, 0, 0] / weight.samples.weight[0, 9, 0])
    assert ratio == pytest.approx(1.09**2, rel=1e-2)


def test_relative_loss_weighs_states_alike_on_every_scale():
    states = data().states * np.array([1.0, 1e-6])
    states[:, :, 1] *= np.geomspace(1, 1e6, 10)
    dataset = check_arrays({"states": states, "times": TIMES})
    surrogate = untrained(dataset)
    assert surrogate.normaliser.states.kinds == ("linear", "log")
    samples = build_problem(dataset, surrogate, loss="relative", refine=1).samples
    off = surrogate.normaliser.states.normalise(jnp.asarray(1.001 * states[0, 5]))
    cost = np.asarray(samples.weight[0, 5] * (off - samples.target[0, 5]) ** 2)
    assert cost[0] == pytest.approx(cost[1], rel=1e-2)
