"""What is predicted below the floor of a logarithm: its error, and its slope."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spnode_core.dataset import check_arrays
from spnode_core.normaliser import fit_scaling
from spnode_core.spec import (
    RelaxationSpec,
    ResidualSpec,
    SurrogateSpec,
    TrainingSpec,
)
from spnode_core.training.fit import fit

FLOOR = 1e-20
SCALING = fit_scaling(np.array([[FLOOR, 0.0], [1.0, 1.0]]), ["log", "linear"])
# From above the floor to below 0, and numbers that have no square or no reciprocal.
FALLING = [1e-3, 1e-19, 1e-21, 1e-40, 1e-200, 1e-307, 5e-324, 0.0, -1e-300]
FALLING += [-1e-20, -1.0, -1e300]


def error_of(x, target, scaling=SCALING):
    """Error of the first state, and its slope, by the prediction."""
    dtype = scaling.width.dtype

    def error(x):
        given = (jnp.stack([x, x]), jnp.asarray([target, 0.5], dtype))
        return scaling.errors(*given)[0]

    return jax.vmap(jax.value_and_grad(error))(jnp.asarray(x, dtype))


def test_errors_grow_by_the_ratio_below_the_floor():
    errors, slopes = error_of([1e-10, 1e-30, 1e-40], 0.0)
    # The floor is -1, and 1 normalised: 20 decades are 2.
    np.testing.assert_allclose(errors, [0.0, -2.0, -3.0], atol=1e-12)
    ratios = slopes * np.array([1e-10, 1e-30, 1e-40])
    np.testing.assert_allclose(ratios, 0.1 / np.log(10), rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_what_is_lower_errs_by_no_less_and_is_pulled_up(dtype):
    scaling = jax.tree.map(lambda leaf: leaf.astype(dtype), SCALING)
    within = np.array(FALLING, np.float64)
    within = within[np.abs(within) < float(jnp.finfo(dtype).max)]
    errors, slopes = error_of(within, 0.0, scaling)
    squares = jax.vmap(jax.grad(lambda x: error_of(x[None], 0.0, scaling)[0][0] ** 2))
    pulls = squares(jnp.asarray(within, dtype))
    for found in (errors, slopes, pulls):
        assert found.dtype == dtype
        assert np.isfinite(found).all()
    assert (np.diff(errors) <= 0).all()
    assert errors[-1] < errors[0]
    below = within < FLOOR
    size = np.maximum(np.abs(within[below]), FLOOR)
    assert (slopes[below] > 0.02 / size).all()
    assert (pulls[below] < 0).all()


def test_nothing_is_pulled_up_to_a_target_at_the_floor():
    target = float(SCALING.normalise(jnp.asarray([0.0, 0.0]))[0])
    errors, slopes = error_of([FLOOR / 2, 1e-40, 0.0, -1.0], target)
    assert (np.asarray(errors) == 0).all()
    assert (np.asarray(slopes) == 0).all()


def test_errors_are_those_of_the_normalised_above_the_floor():
    draw = np.random.default_rng(0)
    x = np.stack([10.0 ** draw.uniform(-20, 1, 50), draw.normal(size=50)], axis=1)
    target = jnp.asarray(draw.uniform(-1, 1, (50, 2)))
    expected = jax.vmap(SCALING.normalise)(jnp.asarray(x)) - target
    found = jax.vmap(SCALING.errors)(jnp.asarray(x), target)
    assert (np.asarray(found) == np.asarray(expected)).all()


def _intermediate(rows):
    """``a -> b ->``, a thousand times as fast the first as the second."""
    times = np.append(0.0, np.geomspace(1e-4, 20.0, 30))
    a, b = np.random.default_rng(0).uniform(0.5, 2.0, (2, rows, 1))
    fast, slow = np.exp(-1e3 * times), np.exp(-times)
    states = [a * (1e-9 + fast), b * slow + a / (1 - 1e-3) * (slow - fast)]
    return check_arrays({"states": np.stack(states, axis=-1), "times": times})


def test_a_model_that_begins_below_the_floor_is_trained():
    dataset = _intermediate(20)
    spec = SurrogateSpec(
        latent=3,
        autoencoder=ResidualSpec(width=8, depth=1),
        nonlinear=RelaxationSpec(width=8, depth=1),
    )
    brief = TrainingSpec(iterations=1, batch=16, refine=1, polish="none")
    start = fit(dataset, spec, brief, seed=1).surrogate
    assert start.normaliser.states.kinds == ("log", "log")
    where = lambda s: s.autoencoder.decoder_network.biases[-1]  # noqa: E731
    lost = eqx.tree_at(where, start, where(start) - 6.0)
    longer = brief.replaced(iterations=400, learning_rate=1e-2)
    run = fit(dataset, None, longer, seed=1, warm_start=lost)
    # A start whose every prediction counts as the floor stays at 3.5.
    assert run.report["metrics"]["test"]["normalised_rmse"] < 1.0
