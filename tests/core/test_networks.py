"""Networks of whole batches: the values and derivatives of the plain ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spnode_core.batched_networks import batched, filled
from spnode_core.networks import Network, transposed
from tests.core.models import GRID, STATES, random_states, small_surrogate

# Few rows, many, and more than a block holds.
SIZES = (1, 2, 63, 64, 65, 128, 300)
LAYOUTS = {"by size": batched, "filled": lambda net: filled(batched(net))}
BOUNDS = {"float32": 2e-6, "float64": 1e-13}


def network(dtype="float64", seed=0):
    return Network(
        3, 2, width=20, depth=2, dtype=jnp.dtype(dtype), key=jax.random.key(seed)
    )


def rows(count):
    return jax.random.normal(jax.random.key(count), (count, 3), jnp.float64)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("count", SIZES)
def test_a_batch_has_the_values_of_its_rows(dtype, count, layout):
    plain = network(dtype)
    found = jax.jit(jax.vmap(LAYOUTS[layout](plain)))(rows(count))
    assert found.dtype == jnp.float64
    expected = jax.vmap(plain)(rows(count))
    np.testing.assert_allclose(found, expected, atol=BOUNDS[dtype])


def test_one_input_needs_no_batch():
    x = rows(1)[0]
    np.testing.assert_allclose(batched(network())(x), network()(x), rtol=1e-13)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("count", SIZES)
def test_derivatives_are_those_of_the_plain_network(count, layout):
    x, direction = rows(count), rows(count + 1)[:count]

    def loss(net, x):
        return (jax.vmap(net)(x) ** 2).sum()

    def derivatives(change):
        by_weights = jax.grad(lambda net: loss(change(net), x))(network())
        by_rows = jax.grad(lambda x: loss(change(network()), x))
        return by_weights, *jax.jvp(by_rows, (x,), (direction,))

    found, expected = derivatives(LAYOUTS[layout]), derivatives(lambda net: net)
    for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("count", [5, 200])
def test_members_with_weights_of_their_own_share_rows(count):
    members = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), *(network(seed=seed) for seed in range(3))
    )
    found = jax.vmap(lambda net: jax.vmap(batched(net))(rows(count)))(members)
    inside = jax.vmap(lambda x: jax.vmap(lambda net: batched(net)(x))(members))
    for number in range(3):
        expected = jax.vmap(network(seed=number))(rows(count))
        np.testing.assert_allclose(found[number], expected, rtol=1e-12)
        np.testing.assert_allclose(inside(rows(count))[:, number], expected, rtol=1e-12)


def test_a_jacobian_within_a_batch():
    x = rows(70)
    found = jax.vmap(jax.jacfwd(batched(network())))(x)
    expected = jax.vmap(jax.jacfwd(network()))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-13)


def test_transposed_twice_is_the_network():
    plain = network()
    once, twice = transposed(plain), transposed(transposed(plain))
    assert [w.shape for w in once.weights] == [w.shape[::-1] for w in plain.weights]
    for one, other in zip(plain.weights, twice.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_user_may_differentiate_within_a_batch():
    surrogate = small_surrogate(normalisation=dict.fromkeys(STATES, "linear"))
    x0 = jnp.asarray(random_states(70))

    def last_states(x0):
        return surrogate.rollout(x0, GRID[-1:])[:, -1].sum()

    one_by_one = jax.vmap(jax.grad(lambda row: last_states(row[None])))(x0)
    np.testing.assert_allclose(one_by_one, jax.grad(last_states)(x0), rtol=1e-10)

    dynamics = surrogate.prepared().dynamics
    none = jnp.zeros(0)
    latent = surrogate.signature.latent
    z = jnp.asarray(np.random.default_rng(0).normal(size=(70, latent)))

    def derivative(z):
        value, linear = jax.linearize(lambda z: dynamics.derivative(z, none, none), z)
        return value, linear(value)

    value, along = jax.vmap(derivative)(z)
    assert jnp.isfinite(value).all()
    assert jnp.isfinite(along).all()


@pytest.mark.parametrize("count", [5, 64])
def test_hessians_by_weights_and_rows(count):
    x = rows(count)

    def loss(net, x):
        return (jax.vmap(net)(x) ** 2).sum()

    def products(change):
        def gradient(net, x):
            return jax.grad(lambda *given: loss(change(given[0]), given[1]), (0, 1))(
                net, x
            )

        along = (network(seed=5), rows(count + 1)[:count])
        return jax.jvp(gradient, (network(), x), along)

    found, expected = products(batched), products(lambda net: net)
    for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)
