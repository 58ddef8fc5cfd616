"""The contracting network and the tight bound that it rests on."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import small_surrogate

from spnode_core.linear.hurwitz import HurwitzOperator
from spnode_core.linear.modal import ModalOperator
from spnode_core.nonlinear.contracting import ContractingOperator, decay_of
from spnode_core.nonlinear.gram import gram_norm
from spnode_core.spec import ContractingSpec, DissipativeSpec, ModalSpec, RatesSpec

MILD = RatesSpec(minimum=0.5, maximum=5.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(32, 32), (32, 5), (3, 32), (1, 1)])
def test_gram_iteration_bounds_the_norm_within_one_percent(shape, dtype):
    for seed, size in enumerate([1e-6, 1.0, 1e6]):
        draw = size * np.random.default_rng(seed).normal(size=shape)
        weight = jnp.asarray(draw, dtype)
        exact = np.linalg.norm(np.asarray(weight, np.float64), 2)
        assert exact <= float(gram_norm(weight)) <= 1.01 * exact
        slope = jax.grad(gram_norm)(weight)
        # The gradient of a norm is a unit matrix: outer product of singular vectors.
        assert np.linalg.norm(slope) == pytest.approx(1, abs=0.02)


def test_the_norm_of_orthogonal_and_of_zero_matrices_is_bounded():
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(32, 32)))
    assert 1 <= float(gram_norm(jnp.asarray(turn))) <= 1.0069
    assert float(gram_norm(jnp.zeros((3, 4)))) < 1e-100
    assert (jax.grad(gram_norm)(jnp.zeros((3, 4))) == 0).all()


def test_the_decay_has_a_gradient_where_eigenvalues_are_equal():
    linear = HurwitzOperator(np.array([2.0, 2.0, 2.0]))
    transform, decay = decay_of(linear)
    assert float(decay) == pytest.approx(2.0)
    np.testing.assert_allclose(transform, np.eye(3))
    slopes = eqx.filter_grad(lambda a: decay_of(a)[1])(linear)
    leaves = jax.tree.leaves(slopes)
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    assert max(np.abs(leaf).max() for leaf in leaves) > 0


def test_a_linear_part_that_does_not_decay_leaves_a_constant():
    spec = ContractingSpec()
    growing = ModalSpec(rates=RatesSpec(minimum=0.5, maximum=5.0), shift=1.0)
    surrogate = small_surrogate(linear=growing, nonlinear=spec)
    dynamics = surrogate.dynamics.prepared()
    values = [
        dynamics.forcing(jnp.full(5, z), jnp.zeros(0), jnp.zeros(0)) for z in (0.0, 9.0)
    ]
    np.testing.assert_array_equal(*values)
    assert not surrogate.certificate()["step_contraction"]["holds"]


@pytest.mark.parametrize("linear", [ModalSpec, DissipativeSpec])
def test_decay_and_slope_of_the_network_stand_in_the_ratio_of_the_margin(linear):
    spec = ContractingSpec(margin=0.9, initial_scale=5.0)
    surrogate = small_surrogate(linear=linear(rates=MILD), nonlinear=spec)
    big = eqx.tree_at(
        lambda s: s.dynamics.nonlinear.network.weights,
        surrogate,
        replace_fn=lambda weights: tuple(20 * weight for weight in weights),
    )
    found = big.certificate()["step_contraction"]
    assert found["holds"]
    assert found["decay"] == pytest.approx(0.5)
    assert found["lipschitz"] == pytest.approx(0.9 * 0.5, rel=0.02)


def test_an_operator_without_its_linear_part_says_so():
    surrogate = small_surrogate(
        linear=ModalSpec(rates=MILD), nonlinear=ContractingSpec()
    )
    operator = surrogate.dynamics.nonlinear
    assert isinstance(operator, ContractingOperator)
    with pytest.raises(ValueError, match="prepared with its A"):
        operator(jnp.zeros(5))
    prepared = operator.prepared(ModalOperator(np.array([1.0])))
    assert prepared.prepared(ModalOperator(np.array([9.0]))) is prepared


def test_rates_that_depend_on_parameters_are_refused():
    linear = ModalSpec(rates=MILD, depends_on_parameters=True)
    with pytest.raises(ValueError, match="whose decay it knows"):
        small_surrogate(parameters=1, linear=linear, nonlinear=ContractingSpec())
