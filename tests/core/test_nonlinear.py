"""Nonlinear operators: bilinear form, Lipschitz bound, the relaxation target's box."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spnode_core.linear.modal import ModalOperator
from spnode_core.nonlinear.initialise import create_nonlinear
from spnode_core.spec import BilinearSpec, LipschitzSpec, MLPSpec, RelaxationSpec


def create(spec, key, *, latent=4, others=0, dtype=jnp.float64):
    return create_nonlinear(
        spec, latent=latent, others=others, dtype=jnp.dtype(dtype), key=key
    )


def test_bilinear_is_exactly_quadratic_without_inputs(key):
    f = create(BilinearSpec(rank=3, initial_scale=1.0), key)
    z = jnp.array([0.3, -1.0, 2.0, 0.1])
    np.testing.assert_allclose(f(3.0 * z), 9.0 * f(z), rtol=1e-13)
    np.testing.assert_array_equal(f(0 * z), np.zeros(4))
    assert np.linalg.matrix_rank(f.last) <= 3


def test_bilinear_lets_inputs_act_linearly(key):
    f = create(BilinearSpec(rank=3, initial_scale=1.0), key, others=1)
    values = [f(jnp.array([0.0, 0, 0, 0, u])) for u in (0.0, 1.0, 2.0)]
    assert not np.allclose(values[1], values[0])


@pytest.mark.parametrize("bound", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("seed", range(5))
def test_lipschitz_constant_never_exceeds_its_bound(bound, seed):
    f = create(LipschitzSpec(width=16, depth=2, bound=bound), jax.random.key(seed))
    # However large the weights grow in training, the bound holds.
    grown = jax.tree.map(lambda leaf: 50.0 * leaf, f)
    norms = [
        np.linalg.norm(jax.jacobian(grown)(z), 2)
        for z in 0.02 * np.random.default_rng(seed).normal(size=(20, 4))
    ]
    assert max(norms) <= bound * (1 + 1e-12)
    assert max(norms) > 0


def test_lipschitz_weights_follow_the_papers_formula(key):
    f = create(LipschitzSpec(width=8, depth=2, bound=2.0), key)
    used_network = f.prepared(ModalOperator(np.ones(4))).network
    for raw, used in zip(f.network.weights, used_network.weights, strict=True):
        raw = np.asarray(raw)
        one, infinity = np.linalg.norm(raw, 1), np.linalg.norm(raw, np.inf)
        expected = 2.0 ** (1 / 3) * raw / np.sqrt(one * infinity)
        np.testing.assert_allclose(used, expected, rtol=1e-13)


def test_lipschitz_gradient_is_finite_at_zero_weights(key):
    f = create(LipschitzSpec(width=8), key)
    zero = jax.tree.map(jnp.zeros_like, f)
    slopes = jax.grad(lambda g: g(jnp.ones(4)).sum())(zero)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


def test_relaxation_target_never_leaves_its_bound(key):
    g = create(RelaxationSpec(width=8), key)
    z = 1e3 * jax.random.normal(key, (500, 4))
    values = np.abs(jax.vmap(g)(z))
    assert (values <= g.bound()[None]).all()
    assert values.max() > 0.3 * np.max(g.bound())


@pytest.mark.parametrize("spec", [MLPSpec(), RelaxationSpec(), LipschitzSpec()])
def test_networks_compute_in_their_own_precision(spec, key):
    single = create(spec, key, dtype=jnp.float32)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(single))
    assert single(jnp.ones(4)).dtype == jnp.float64
