"""The POD autoencoder: principal directions, whitened, with or without networks."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spnode_core as sp
from spnode_core.autoencoder import PODAutoencoder
from spnode_core.errors import InvalidInput
from spnode_core.spec import (
    ModalSpec,
    PODSpec,
    QuadraticSpec,
    RatesSpec,
    SurrogateSpec,
    TrainingSpec,
    UniformStepsSpec,
)
from spnode_core.surrogate import trainable
from spnode_core.training.initialise import create_surrogate, principal_directions
from spnode_core.training.presets import resolve

RATES = RatesSpec(minimum=0.1, maximum=2.0)


@pytest.fixture(scope="module")
def field():
    """Travelling waves on 24 points: three wave numbers, so six directions."""
    random = np.random.default_rng(0)
    s, times = np.arange(24) / 24, np.arange(12) * 0.1
    states = []
    for _ in range(10):
        phases = random.uniform(0, 2 * np.pi, 3)
        waves = [
            np.sin(2 * np.pi * k * s - k * times[:, None] + phases[k - 1]) / k
            for k in (1, 2, 3)
        ]
        states.append(3.0 + sum(waves))
    return sp.check_arrays({"states": np.stack(states), "times": times})


def pod(field, *, latent=6, **fields):
    spec = SurrogateSpec(
        latent=latent,
        linear=ModalSpec(rates=RATES),
        nonlinear=QuadraticSpec(),
        autoencoder=PODSpec(**fields),
        steps=UniformStepsSpec(step=0.1),
        integrator="krogstad",
    )
    resolved, _, _ = resolve(field, spec, TrainingSpec())
    return create_surrogate(field, resolved, seed=0)


def test_decoding_what_was_encoded_is_the_projection_on_the_data(field):
    surrogate = pod(field)
    x = field.states[3, 5]
    none = jnp.zeros(0)
    z = surrogate.encode(jnp.asarray(x), none)
    np.testing.assert_allclose(surrogate.decode(z, none, none), x, atol=1e-6)


def test_latent_variables_have_no_mean_and_unit_variance(field):
    surrogate = pod(field)
    samples = jnp.asarray(field.states.reshape(-1, 24))
    z = jax.vmap(lambda x: surrogate.encode(x, jnp.zeros(0)))(samples)
    np.testing.assert_allclose(z.mean(axis=0), 0.0, atol=1e-10)
    np.testing.assert_allclose((z**2).mean(axis=0), 1.0, rtol=1e-9)


def test_directions_are_never_trained_and_survive_a_file(field, tmp_path):
    surrogate = pod(field, latent=2, modes=6, width=8)
    trained, _ = eqx.partition(surrogate, trainable(surrogate))
    assert isinstance(surrogate.autoencoder, PODAutoencoder)
    assert jax.tree.leaves(trained.autoencoder.directions) == []
    assert len(jax.tree.leaves(trained.autoencoder)) > 0
    sp.save(surrogate, tmp_path / "a.spnode")
    loaded = sp.load(tmp_path / "a.spnode")
    pairs = zip(
        loaded.autoencoder.directions, surrogate.autoencoder.directions, strict=True
    )
    assert all(np.array_equal(a, b) for a, b in pairs)


def test_networks_start_near_the_first_modes(field):
    surrogate = pod(field, latent=2, modes=6, width=8)
    autoencoder = surrogate.autoencoder
    y = jnp.asarray(np.random.default_rng(0).normal(size=6))
    assert np.abs(autoencoder.encode_modes(y) - y[:2]).max() < 0.3
    restored = autoencoder.decode_modes(y[:2], jnp.zeros(0))
    assert np.abs(restored - jnp.append(y[:2], jnp.zeros(4))).max() < 0.3


@pytest.mark.parametrize("width", [None, 8])
def test_bounds_of_encoder_and_decoder_bound(field, width):
    surrogate = pod(field, latent=4, modes=4 if width is None else 6, width=width)
    autoencoder = surrogate.autoencoder
    random = np.random.default_rng(0)
    features = random.uniform(-1, 1, (200, 24))
    z = jax.vmap(autoencoder.encode)(jnp.asarray(features))
    bound = autoencoder.encode_bound(jnp.ones(24))
    assert (np.abs(z).max(axis=0) <= bound).all()
    z = random.uniform(-2, 2, (200, 4))
    decoded = jax.vmap(lambda v: autoencoder.decode(v, jnp.zeros(0)))(jnp.asarray(z))
    assert (
        np.abs(decoded).max(axis=0) <= autoencoder.decode_bound(2 * jnp.ones(4))
    ).all()


def test_directions_that_the_data_does_not_have_are_refused(field):
    scaled = field.states.reshape(-1, 24)
    with pytest.raises(InvalidInput, match=r"8 principal directions.*at most 6"):
        principal_directions(scaled, 8)


def test_equal_data_gives_equal_signs(field):
    scaled = field.states.reshape(-1, 24)
    one, two = (principal_directions(scaled[::k], 6).vectors for k in (1, -1))
    np.testing.assert_allclose(one, two, atol=1e-8)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"modes": 5}, r"found 5.*6, the number of latent variables"),
        ({"modes": 4, "width": 8}, r"found 4.*6 to 24"),
    ],
)
def test_modes_that_do_not_fit_are_refused(field, fields, message):
    with pytest.raises(InvalidInput, match=message):
        pod(field, **fields)
