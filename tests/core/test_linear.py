"""Linear operators: stable for any parameters, exact flows, agreement of the forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from spnode_core.errors import InvalidInput
from spnode_core.linear.hurwitz import HurwitzOperator
from spnode_core.linear.initialise import create_linear, log_spaced_rates
from spnode_core.linear.modal import ModalOperator
from spnode_core.spec import DenseSpec, FixedSpec, HurwitzSpec, ModalSpec, RatesSpec

RATES = RatesSpec(minimum=1e-5, maximum=1e4)


def perturbed(operator, seed, size):
    """The operator with every array moved by ``size`` times a normal draw."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: leaf + size * rng.normal(size=leaf.shape), operator
    )


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_hurwitz_stays_below_its_shift_for_any_parameters(seed, shift):
    operator = HurwitzOperator(np.ones(6), shift=shift)
    matrix = perturbed(operator, seed, 0.8).matrix()
    abscissa = np.linalg.eigvals(matrix).real.max()
    assert abscissa < shift


@pytest.mark.parametrize("seed", range(10))
def test_hurwitz_lyapunov_matrix_decreases_along_the_flow(seed):
    operator = perturbed(HurwitzOperator(np.ones(5)), seed, 1.0)
    q, k, p = operator.factors()
    matrix = operator.matrix()
    decrease = matrix.T @ p + p @ matrix
    assert np.linalg.eigvalsh(decrease).max() < 0
    np.testing.assert_allclose(k, -k.T)
    np.testing.assert_allclose(jnp.trace(p), 5.0)
    np.testing.assert_allclose((k - q) @ p, matrix)


def test_hurwitz_has_as_many_parameters_as_the_theorem_says():
    operator = HurwitzOperator(np.ones(7))
    count = sum(leaf.size for leaf in jax.tree.leaves(operator))
    assert count == 7 * (3 * 7 + 1) // 2


@pytest.mark.parametrize("kind", [HurwitzSpec, ModalSpec, DenseSpec])
def test_initial_rates_are_log_spaced_over_their_decades(kind):
    operator = create_linear(kind(rates=RATES), latent=10, parameters=0)
    found = np.sort(-np.diag(operator.matrix()))
    np.testing.assert_allclose(found, np.logspace(-5, 4, 10), rtol=1e-12)


def test_a_single_rate_is_the_geometric_mean():
    np.testing.assert_allclose(log_spaced_rates(1, RATES), [np.sqrt(1e-1)])


@pytest.mark.parametrize("shift", [0.0, 0.3])
@pytest.mark.parametrize("step", [0.0, 1e-3, 0.7, 40.0])
def test_modal_flow_equals_that_of_its_matrix(step, shift):
    operator = ModalOperator(np.array([0.1, 2.0, 0.5, 3.0]), oscillating=2, shift=shift)
    vector = jnp.arange(1.0, 7.0)
    propagator = operator.propagator(jnp.asarray(step), 3)
    matrix = np.asarray(operator.matrix())
    exact = scipy.linalg.expm(step * matrix)
    np.testing.assert_allclose(propagator.apply(0, vector), exact @ vector, atol=1e-7)
    dense = super(ModalOperator, operator).propagator(jnp.asarray(step), 3)
    for order in range(4):
        np.testing.assert_allclose(
            propagator.apply(order, vector),
            dense.apply(order, vector),
            rtol=1e-11,
            atol=1e-14,
        )
    np.testing.assert_allclose(
        propagator.relax(vector), dense.relax(vector), rtol=1e-10, atol=1e-13
    )
    np.testing.assert_allclose(operator.apply(vector), matrix @ vector, rtol=1e-14)


@pytest.mark.parametrize("kind", [HurwitzSpec, ModalSpec])
def test_an_empty_step_changes_no_bit(kind):
    operator = create_linear(kind(rates=RATES), latent=4, parameters=0)
    vector = jnp.array([1.0, -2e-7, 3e9, 4.1])
    propagator = operator.propagator(jnp.asarray(0.0), 1)
    np.testing.assert_array_equal(propagator.apply(0, vector), vector)
    np.testing.assert_array_equal(propagator.relax(vector), np.zeros(4))


def test_modal_rates_follow_parameters_when_asked_to():
    spec = ModalSpec(rates=RATES, depends_on_parameters=True)
    operator = create_linear(spec, latent=3, parameters=2)
    moved = perturbed(operator, 0, 0.5)
    p = jnp.array([0.3, -1.0])
    expected = np.exp(moved.log_rates + moved.sensitivity @ p)
    np.testing.assert_allclose(-np.diag(moved.matrix(p)), expected)
    assert not np.allclose(moved.matrix(p), moved.matrix(-p))


def test_specs_that_do_not_fit_the_latent_size_are_refused():
    with pytest.raises(InvalidInput, match=r"linear\.matrix.*2 rows.*3"):
        create_linear(
            FixedSpec(matrix=((-1.0, 0.0), (0.0, -1.0))), latent=3, parameters=0
        )
    with pytest.raises(InvalidInput, match=r"oscillating.*at most 1"):
        create_linear(ModalSpec(rates=RATES, oscillating=2), latent=3, parameters=0)
    with pytest.raises(InvalidInput, match=r"linear\.rates"):
        create_linear(ModalSpec(), latent=3, parameters=0)
    with pytest.raises(ValueError, match="positive"):
        HurwitzOperator(np.array([-1.0]))


def test_rates_have_gradients_through_a_stiff_step():
    operator = ModalOperator(np.array([1e-5, 1.0, 1e4]))

    def last(op):
        return op.propagator(jnp.asarray(3.7e4), 1).apply(1, jnp.ones(3)).sum()

    slopes = jax.grad(last)(operator).log_rates
    assert np.isfinite(slopes).all()
    assert (slopes < 0).all()
