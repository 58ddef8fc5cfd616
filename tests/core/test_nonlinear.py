"""Nonlinear operators: bilinear form, Lipschitz bound, the relaxation target's box."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spnode_core.linear.modal import ModalOperator
from spnode_core.nonlinear.gram import gram_norm
from spnode_core.nonlinear.initialise import create_nonlinear
from spnode_core.nonlinear.lipschitz import row_column_norm
from spnode_core.spec import (
    BilinearSpec,
    LipschitzSpec,
    MLPSpec,
    QuadraticSpec,
    RelaxationSpec,
)


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


@pytest.mark.parametrize("bound", [0.1, 30.0])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("layer_norm", ["row_column", "gram"])
def test_lipschitz_constant_never_exceeds_its_bound(bound, seed, layer_norm):
    spec = LipschitzSpec(width=16, depth=2, bound=bound, layer_norm=layer_norm)
    f = create(spec, jax.random.key(seed))
    # However large the weights grow in training, the bound holds.
    grown = jax.tree.map(lambda leaf: 50.0 * leaf, f)
    z = 0.02 * np.random.default_rng(seed).normal(size=(20, 4))
    jacobians = jax.jit(jax.vmap(jax.jacobian(grown)))(jnp.asarray(z))
    norms = np.linalg.norm(jacobians, 2, axis=(1, 2))
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


def layers(seed):
    """Layers of networks, of low rank and with far-off sizes."""
    rng = np.random.default_rng(seed)
    tall, wide = rng.normal(size=(64, 7)), rng.uniform(-1, 1, size=(5, 64))
    thin = 1e-9 * np.outer(rng.normal(size=30), rng.normal(size=30))
    basis = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    return [tall, wide, thin, 1e12 * rng.normal(size=(20, 20)), 3.0 * basis]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_bounds_of_layers_are_never_below_the_norm_and_that_by_grams_is_tight(
    seed, dtype
):
    for weight in layers(seed):
        exact = np.linalg.norm(weight.astype(dtype).astype(np.float64), 2)
        assert exact <= float(gram_norm(jnp.asarray(weight, dtype))) <= 1.01 * exact
        assert exact <= float(row_column_norm(jnp.asarray(weight, dtype))) * 1.00001


def test_gram_bound_wastes_per_cents_where_rows_and_columns_waste_multiples():
    rng = np.random.default_rng(0)
    for shape in ((200, 20), (200, 200), (20, 200)):
        weight = jnp.asarray(rng.uniform(-1, 1, size=shape))
        exact = np.linalg.norm(weight, 2)
        assert row_column_norm(weight) > 3 * exact
        assert gram_norm(weight) < 1.01 * exact


def test_gram_bound_has_the_gradient_of_the_norm_where_it_is_tight():
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.normal(size=(n, 4)))[0] for n in (9, 6))
    weight = jnp.asarray(u @ np.diag([5.0, 2.0, 1.0, 0.5]) @ v.T)
    slopes = jax.jit(jax.grad(gram_norm))(weight)
    np.testing.assert_allclose(slopes, np.outer(u[:, 0], v[:, 0]), atol=1e-12)


@pytest.mark.parametrize("layer_norm", ["row_column", "gram"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_lipschitz_gradient_is_finite_at_zero_weights(key, layer_norm, dtype):
    f = create(LipschitzSpec(width=8, layer_norm=layer_norm), key, dtype=dtype)
    zero = jax.tree.map(jnp.zeros_like, f)
    slopes = jax.jit(jax.grad(lambda g: g(jnp.ones(4)).sum()))(zero)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


def test_relaxation_target_never_leaves_its_bound(key):
    g = create(RelaxationSpec(width=8), key)
    z = 1e3 * jax.random.normal(key, (500, 4))
    values = np.abs(jax.vmap(g)(z))
    assert (values <= g.bound()[None]).all()
    assert values.max() > 0.3 * np.max(g.bound())


def test_quadratic_form_equals_a_reference_einsum(key):
    f = create(QuadraticSpec(initial_scale=1.0), key, others=2)
    moved = jax.tree.map(lambda leaf: leaf + 0.3, f)
    v = jnp.asarray(np.random.default_rng(0).normal(size=6))
    z = np.asarray(v[:4])
    cube = np.zeros((4, 4, 4))
    cube[:, *np.triu_indices(4)] = moved.products
    expected = np.einsum("ijk,j,k->i", cube, z, z)
    expected += moved.affine[:, :6] @ v + moved.affine[:, 6]
    np.testing.assert_allclose(moved(v), expected, rtol=1e-13)


def test_energy_preserving_products_neither_add_nor_remove_any(key):
    spec = QuadraticSpec(energy_preserving=True, affine=False, initial_scale=3.0)
    f = create(spec, key, latent=7)
    z = 10.0 * np.random.default_rng(0).normal(size=(200, 7))
    values = jax.vmap(f)(jnp.asarray(z))
    power = np.abs(np.sum(z * values, axis=1))
    assert (power <= 1e-14 * np.sum(np.abs(z * values), axis=1)).all()
    np.testing.assert_allclose(jax.vmap(f)(jnp.asarray(-2 * z)), 4 * values)
    assert np.abs(values).max() > 1.0


def test_every_energy_preserving_form_can_be_represented(key):
    # All forms with z . f(z) = 0: f_i = sum_jk c_ijk z_j z_k whose sums over
    # permutations of the indices vanish. Their dimension is n (n^2 - 1) / 3.
    n = 4
    f = create(QuadraticSpec(energy_preserving=True, affine=False), key, latent=n)
    units = jnp.eye(f.turning.size).reshape(-1, *f.turning.shape)
    points = jnp.asarray(np.random.default_rng(1).normal(size=(60, n)))

    def values(turning):
        return jax.vmap(eqx.tree_at(lambda g: g.turning, f, turning))(points).ravel()

    reached = np.linalg.matrix_rank(jax.vmap(values)(units))
    assert reached == n * (n**2 - 1) // 3


def test_quadratic_coefficients_are_double_beside_a_single_network(key):
    f = create(QuadraticSpec(width=8), key, dtype=jnp.float32)
    assert f.products.dtype == f.affine.dtype == jnp.float64
    assert f.network.weights[0].dtype == jnp.float32
    assert f(jnp.ones(4)).dtype == jnp.float64


@pytest.mark.parametrize("spec", [MLPSpec(), RelaxationSpec(), LipschitzSpec()])
def test_networks_compute_in_their_own_precision(spec, key):
    single = create(spec, key, dtype=jnp.float32)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(single))
    assert single(jnp.ones(4)).dtype == jnp.float64
