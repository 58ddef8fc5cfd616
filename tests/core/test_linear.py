"""Linear operators: stable for any parameters, exact flows, agreement of the forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from spnode_core.errors import InvalidInput
from spnode_core.linear.dissipative import DissipativeOperator
from spnode_core.linear.hurwitz import HurwitzOperator
from spnode_core.linear.initialise import create_linear, log_spaced_rates
from spnode_core.linear.modal import ModalOperator
from spnode_core.linear.sparse import SparseOperator
from spnode_core.linear.symbol import SymbolOperator
from spnode_core.spec import (
    DenseSpec,
    DissipativeSpec,
    FixedSpec,
    HurwitzSpec,
    ModalSpec,
    RatesSpec,
    SparseSpec,
    SymbolSpec,
)

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


@pytest.mark.parametrize("kind", [HurwitzSpec, DissipativeSpec, ModalSpec, DenseSpec])
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
    with pytest.raises(InvalidInput, match=r"linear\.size.*2 rows.*3"):
        create_linear(
            SparseSpec(size=2, rows=(0,), columns=(1,), values=(1.0,)),
            latent=3,
            parameters=0,
        )
    with pytest.raises(InvalidInput, match=r"linear\.matrix.*1 rows.*3"):
        create_linear(HurwitzSpec(matrix=((-1.0,),)), latent=3, parameters=0)
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


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_dissipative_logarithmic_norm_stays_below_its_shift(seed, shift):
    operator = perturbed(DissipativeOperator(np.ones(6), shift=shift), seed, 0.8)
    matrix = np.asarray(operator.matrix())
    assert np.linalg.eigvalsh((matrix + matrix.T) / 2).max() < shift
    q, k = operator.factors()
    np.testing.assert_allclose(k - q + shift * np.eye(6), matrix)


def stable_matrices():
    rng = np.random.default_rng(5)
    draw = rng.normal(size=(5, 5))
    abscissa = np.linalg.eigvals(draw).real.max()
    basis = np.linalg.qr(rng.normal(size=(4, 4)))[0] + 0.3 * rng.normal(size=(4, 4))
    rates = np.diag(-np.array([1e-5, 0.3, 20.0, 1e4]))
    return {
        "random": draw - (abscissa + 0.4) * np.eye(5),
        "stiff": basis @ rates @ np.linalg.inv(basis),
        "defective": np.array([[-1.0, 5.0, 0.0], [0.0, -1.0, 5.0], [0.0, 0.0, -1.0]]),
        "nearly defective": np.array([[-1.0, 1e3], [0.0, -1.0 - 1e-9]]),
        "oscillating": np.array([[-1e-3, 40.0], [-10.0, -1e-3]]),
        "scalar": np.array([[-3.0]]),
    }


@pytest.mark.parametrize("name", stable_matrices())
@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_any_stable_matrix_becomes_hurwitz_and_is_kept(name, shift):
    matrix = stable_matrices()[name] + shift * np.eye(len(stable_matrices()[name]))
    operator = HurwitzOperator.from_matrix(matrix, shift=shift)
    found = np.asarray(operator.matrix())
    np.testing.assert_allclose(found, matrix, atol=1e-9 * np.abs(matrix).max())
    q, _, p = operator.factors()
    assert np.linalg.eigvalsh(q).min() > 0
    assert np.linalg.eigvalsh(p).min() > 0


def test_import_keeps_a_symmetric_matrix_to_its_last_digits_with_p_the_identity():
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    matrix = basis @ np.diag([-1e-4, -1.0, -1e4]) @ basis.T
    matrix = (matrix + matrix.T) / 2
    operator = HurwitzOperator.from_matrix(matrix)
    np.testing.assert_allclose(operator.factors()[2], np.eye(3), atol=1e-12)
    np.testing.assert_allclose(operator.matrix(), matrix, atol=1e-11)


def test_a_matrix_that_is_not_stable_is_no_hurwitz_operator():
    rows = ((-1.0, 0.0), (0.0, 0.25))
    with pytest.raises(InvalidInput, match=r"matrix.*real part 0\.25.*shift = 0"):
        create_linear(HurwitzSpec(matrix=rows), latent=2, parameters=0)
    shifted = create_linear(HurwitzSpec(matrix=rows, shift=1.0), latent=2, parameters=0)
    np.testing.assert_allclose(shifted.matrix(), rows, atol=1e-15)


def test_sparse_entries_at_one_place_add_up():
    operator = SparseOperator(3, (0, 0, 2, 1), (1, 1, 0, 1), (2.0, 3.0, -1.0, -4.0))
    matrix = np.array([[0.0, 5.0, 0.0], [0.0, -4.0, 0.0], [-1.0, 0.0, 0.0]])
    np.testing.assert_array_equal(operator.matrix(), matrix)
    vector = jnp.array([1.0, -2.0, 0.5])
    np.testing.assert_allclose(operator.apply(vector), matrix @ vector)
    back = operator.action().transposed.apply(vector)
    np.testing.assert_allclose(back, matrix.T @ vector)
    assert jax.tree.leaves(operator) == []


def test_discs_give_the_smallest_norm_that_a_shift_leaves():
    matrix = np.random.default_rng(1).normal(size=(6, 6)) - 3 * np.eye(6)
    rows, columns = np.nonzero(matrix)
    values = tuple(matrix[rows, columns].tolist())
    sparse = SparseOperator(6, tuple(rows.tolist()), tuple(columns.tolist()), values)
    dense = create_linear(
        FixedSpec(matrix=tuple(map(tuple, matrix.tolist()))), latent=6, parameters=0
    )
    low, high = dense.action().discs()
    np.testing.assert_allclose(sparse.action().discs(), (low, high), rtol=1e-13)
    shifts = np.linspace(-8, 4, 601)
    norms = [np.linalg.norm(matrix - s * np.eye(6), 1) for s in shifts]
    middle, half = (low + high) / 2, (high - low) / 2
    assert half <= min(norms) + 1e-12
    np.testing.assert_allclose(
        np.linalg.norm(matrix - middle * np.eye(6), 1), half, rtol=1e-13
    )


@pytest.mark.parametrize("points", [15, 16])
def test_symbol_differentiates_waves_exactly(points):
    length = 3.0
    s = length * np.arange(points) / points
    k = 2 * np.pi / length
    operator = SymbolOperator(points, length, (0.5, -2.0, 1.5, 0.25))
    wave = jnp.asarray(np.sin(2 * k * s))
    expected = (0.5 - 1.5 * 4 * k**2) * np.sin(2 * k * s)
    expected += (-2.0 * 2 * k - 0.25 * 8 * k**3) * np.cos(2 * k * s)
    np.testing.assert_allclose(operator.apply(wave), expected, atol=1e-12)
    np.testing.assert_allclose(operator.matrix() @ wave, expected, atol=1e-12)


def test_odd_derivatives_of_the_shortest_wave_vanish_and_even_ones_do_not():
    wave = jnp.asarray([1.0, -1.0] * 4)
    first = SymbolOperator(8, 2 * np.pi, (0.0, 1.0))
    second = SymbolOperator(8, 2 * np.pi, (0.0, 0.0, 1.0))
    np.testing.assert_allclose(first.apply(wave), np.zeros(8), atol=1e-14)
    np.testing.assert_allclose(second.apply(wave), -16 * np.asarray(wave))
    # The matrix of an odd derivative is skew and that of an even one symmetric.
    np.testing.assert_allclose(first.matrix(), -first.matrix().T, atol=1e-14)
    np.testing.assert_allclose(second.matrix(), second.matrix().T, atol=1e-13)


def test_symbol_of_kuramoto_sivashinsky_is_q2_minus_q4():
    operator = create_linear(
        SymbolSpec(length=22.0, coefficients=(0, 0, -1, 0, -1)), latent=64, parameters=0
    )
    q = 2 * np.pi / 22.0 * np.arange(33)
    np.testing.assert_allclose(operator.symbol(), q**2 - q**4, rtol=1e-13)
    found = np.sort(np.linalg.eigvalsh(operator.matrix()))
    twice = np.sort(np.concatenate([q**2 - q**4, (q**2 - q**4)[1:-1]]))
    np.testing.assert_allclose(found, twice, atol=1e-11)


@pytest.mark.parametrize("step", [0.0, 1e-3, 0.7])
@pytest.mark.parametrize("points", [9, 10])
def test_symbol_flow_equals_that_of_its_matrix(step, points):
    operator = SymbolOperator(points, 11.0, (0.0, 0.3, -1.0, 0.2, -1.0))
    vector = jnp.asarray(np.random.default_rng(0).normal(size=points))
    propagator = operator.propagator(jnp.asarray(step), 3)
    dense = super(SymbolOperator, operator).propagator(jnp.asarray(step), 3)
    for order in range(4):
        np.testing.assert_allclose(
            propagator.apply(order, vector), dense.apply(order, vector), atol=1e-13
        )
    np.testing.assert_allclose(
        propagator.relax(vector), dense.relax(vector), atol=1e-13
    )


@pytest.mark.parametrize(
    "spec",
    [
        HurwitzSpec(rates=RATES),
        DissipativeSpec(rates=RATES),
        ModalSpec(rates=RATES),
        DenseSpec(rates=RATES),
        FixedSpec(matrix=((-1.0, 2.0), (0.0, -3.0))),
        SparseSpec(size=2, rows=(0, 1), columns=(1, 1), values=(1.0, -2.0)),
        SymbolSpec(length=1.0, coefficients=(-1.0, 0.2)),
    ],
    ids=lambda spec: spec.kind,
)
def test_every_operator_multiplies_as_its_matrix_also_in_batches(spec):
    operator = create_linear(spec, latent=2, parameters=0)
    vectors = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)))
    found = jax.vmap(operator.apply)(vectors)
    np.testing.assert_allclose(found, vectors @ operator.matrix().T, rtol=1e-12)
    trained = spec.kind not in ("fixed", "sparse", "symbol")
    assert bool(jax.tree.leaves(operator)) == trained
