import jax.numpy as jnp
import numpy as np
import pytest
from models import random_states, small_surrogate

from spnode_core.attractor import (
    error_curve,
    hellinger_distance,
    joint_density,
    relative_entropy,
    spectral_derivative,
    valid_prediction_time,
)
from spnode_core.errors import InvalidInput
from spnode_core.rollout import march
from spnode_core.spec import UniformStepsSpec

TIMES = np.linspace(0.0, 10.0, 11)


def growing(rates):
    """A truth of size 1 and predictions whose errors grow linearly."""
    truth = np.ones((len(rates), len(TIMES), 4)) / 2
    error = np.zeros_like(truth)
    error[:, :, 0] = np.array(rates)[:, None] * TIMES
    return truth + error, truth


def test_prediction_time_is_where_the_error_passes_the_threshold():
    predicted, truth = growing([0.1, 0.05, 0.01])
    found = valid_prediction_time(predicted, truth, TIMES, 0.42)
    # The last one never passes it: the time is that of the last sample.
    np.testing.assert_allclose(found, [4.2, 8.4, 10.0])


def test_prediction_that_overflows_is_valid_until_its_last_finite_sample():
    predicted, truth = growing([0.01])
    predicted[0, 6:] = np.nan
    assert np.isinf(error_curve(predicted, truth)[0, 6:]).all()
    assert valid_prediction_time(predicted, truth, TIMES, 0.4)[0] == 5.0


def test_wrong_start_has_no_valid_prediction_time():
    predicted, truth = growing([0.1])
    assert valid_prediction_time(predicted + 1.0, truth, TIMES, 0.4)[0] == 0.0


def test_shapes_that_differ_are_refused():
    predicted, truth = growing([0.1])
    with pytest.raises(InvalidInput, match="that of the truth"):
        error_curve(predicted[:, :3], truth)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_derivatives_of_resolved_waves_are_exact(order):
    length, wave = 22.0, 2 * np.pi * 3 / 22.0
    s = np.arange(64) * length / 64
    expected = wave**order * np.sin(wave * s + order * np.pi / 2)
    found = spectral_derivative(np.sin(wave * s), length, order)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_density_of_a_wave_lies_on_its_ellipse():
    length = 2 * np.pi
    s = np.arange(64) * length / 64
    density = joint_density(np.sin(s[None] + s[:, None]), length, bins=40, extent=2.0)
    assert density.sum() == pytest.approx(1.0)
    centres = (np.arange(40) + 0.5) / 10 - 2.0
    first, second = np.nonzero(density)
    # u_x = cos, u_xx = -sin: the unit circle, up to a cell's diagonal.
    radius = np.hypot(centres[first], centres[second])
    assert np.abs(radius - 1.0).max() < 0.08


def test_fields_that_are_not_finite_are_left_out_of_a_density():
    fields = np.random.default_rng(0).normal(size=(20, 16))
    with_one_more = np.concatenate([fields, np.full((1, 16), np.nan)])
    np.testing.assert_array_equal(
        joint_density(fields, 1.0), joint_density(with_one_more, 1.0)
    )
    with pytest.raises(InvalidInput, match="finite"):
        joint_density(with_one_more[-1:], 1.0)


def test_distances_of_densities_match_their_closed_forms():
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.75, 0.0])
    overlap = np.sqrt(0.125) + np.sqrt(0.375)
    assert hellinger_distance(p, q) == pytest.approx(np.sqrt(1 - overlap))
    assert hellinger_distance(p, p) == pytest.approx(0.0, abs=1e-7)
    assert hellinger_distance(p, np.array([0.0, 0.0, 1.0])) == 1.0
    entropy = 0.5 * np.log(2) + 0.5 * np.log(2 / 3)
    assert relative_entropy(p, q) == pytest.approx(entropy)
    assert np.isfinite(relative_entropy(p, np.array([1.0, 0.0, 0.0])))


def test_marching_in_chunks_equals_one_rollout():
    surrogate = small_surrogate(steps=UniformStepsSpec(step=0.5))
    x0 = random_states(3)
    none = jnp.zeros(0)
    z = jnp.stack([surrogate.encode(jnp.asarray(x), none) for x in x0])
    chunks = []
    for _ in range(2):
        chunks.append(march(surrogate, z, step=0.5, every=4, count=3))
        z = chunks[-1][-1]
    latents = np.concatenate(chunks).swapaxes(0, 1)
    sums = jnp.zeros(0)
    marched = [
        [surrogate.decode(jnp.asarray(v), sums, none) for v in r] for r in latents
    ]
    expected = surrogate.rollout(x0, 2.0 * np.arange(1, 7))
    np.testing.assert_allclose(np.array(marched), expected, rtol=1e-12, atol=1e-15)
