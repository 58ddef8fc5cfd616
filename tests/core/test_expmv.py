"""Matrix-free exponentials: the thetas, long arithmetic, phi sums, every derivative."""

from fractions import Fraction

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spnode_core.integrators.expmv import (
    DEGREES,
    LARGEST_NORM,
    THETA,
    degree_and_stages,
    taylor_flow,
)
from spnode_core.integrators.matrix_free import (
    MatrixFreePropagator,
    ScaledAction,
    phi_sum,
)
from spnode_core.integrators.phi import matrix_flow
from spnode_core.linear.action import DenseAction
from spnode_core.linear.sparse import SparseOperator

M1 = ((-1.0, 100.0, 0.0), (0.0, -100.0, 1000.0), (0.0, 0.0, -1e4))
M2 = ((-1.0, 100.0, 3.0), (2.0, -300.0, 1000.0), (0.0, -50.0, -1e4))


def backward_error_series(degree, terms):
    """Moduli of c_k, k = m + 1 .., of log(e^-x T_m(x)) = sum_k c_k x^k, exactly.

    With r = log(e^-x T_m): r' = T_m' / T_m - 1 = -x^m / (m! T_m).
    """
    factorials = [Fraction(1)]
    for k in range(1, degree + 1):
        factorials.append(factorials[-1] * k)
    taylor = [1 / f for f in factorials]
    inverse = [Fraction(1)]
    for k in range(1, terms):
        upto = range(1, min(k, degree) + 1)
        inverse.append(-sum(taylor[j] * inverse[k - j] for j in upto))
    return [
        float(abs(inverse[k] / (factorials[degree] * (degree + k + 1))))
        for k in range(terms)
    ]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("degree", [5, 10, 25, 55])
def test_thetas_bound_the_backward_error_by_half_a_unit(degree, dtype):
    theta = THETA[dtype][DEGREES.index(degree)]
    unit, digits = (2.0**-53, 4e-10) if dtype == "float64" else (2.0**-24, 6e-6)
    moduli = backward_error_series(degree, 90)

    def relative(x):
        return sum(c * x ** (degree + k) for k, c in enumerate(moduli))

    assert relative(theta * (1 - digits)) < unit < relative(theta * (1 + digits))


@pytest.mark.parametrize("norm", [0.0, 1e-3, 0.5, 3.0, 10.0, 777.0, 1e6])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_degree_and_stages_are_the_cheapest_that_are_accurate(norm, dtype):
    degree, stages = map(int, degree_and_stages(jnp.asarray(norm), dtype))
    thetas = dict(zip(DEGREES, THETA[jnp.dtype(dtype).name], strict=True))
    assert norm / stages <= thetas[degree]
    needed = [m * max(1, np.ceil(norm / theta)) for m, theta in thetas.items()]
    assert degree * stages == min(needed)


@pytest.mark.parametrize(
    ("rows", "step", "expected"),
    [
        (M1, 1e-3, (0.83456710448013732, -1.5354954366457988, 1.3619978928745455e-4)),
        (M1, 1.0, (-0.26382158156034364,)),
        (M2, 1e-3, (0.85122381988493988, -1.2450484990761707, 6.5585149429413693e-3)),
        (M2, 1.0, (0.31348637027312154, 2.0579657321190345e-3, -1.0290182253416826e-5)),
    ],
)
def test_flow_of_a_vector_agrees_with_long_arithmetic(rows, step, expected):
    action = ScaledAction(DenseAction(jnp.asarray(rows)), jnp.asarray(step))
    found = phi_sum(action, (jnp.array([1.0, -2.0, 3.0]),))
    np.testing.assert_allclose(found[: len(expected)], expected, rtol=1e-12)


def laplacian(points):
    """Second differences on the unit interval, by their entries."""
    scale = float((points + 1) ** 2)
    entries = [
        (i, j, scale * (-2.0 if i == j else 1.0))
        for i in range(points)
        for j in (i - 1, i, i + 1)
        if 0 <= j < points
    ]
    rows, columns, values = zip(*entries, strict=True)
    return SparseOperator(points, rows, columns, values)


@eqx.filter_jit
def phi_sums(propagator, vectors):
    """Each phi function, a full sum, one with gaps, and the relaxation."""
    each = [propagator.apply(order, vectors[0]) for order in range(4)]
    gaps = propagator.combine(None, vectors[1], None, vectors[3])
    return jnp.stack([*each, propagator.combine(*vectors), gaps]), propagator.relax(
        vectors[0]
    )


def test_phi_sums_of_a_sparse_operator_equal_those_of_its_matrix():
    operator, rng = laplacian(20), np.random.default_rng(0)
    vectors = [jnp.asarray(rng.normal(size=20)) for _ in range(4)]
    for step in map(jnp.asarray, (0.0, 1e-7, 1e-3, 0.1)):
        free = MatrixFreePropagator(operator.action(), step)
        found, relaxed = phi_sums(free, vectors)
        expected, change = phi_sums(operator.propagator(step, 3), vectors)
        np.testing.assert_allclose(found, expected, atol=1e-12)
        # Small changes keep their relative precision, and there is none at h = 0.
        tolerance = 1e-13 * (step > 1e-6)
        np.testing.assert_allclose(relaxed, change, rtol=1e-9, atol=tolerance)


def test_nothing_moves_in_an_empty_step():
    free = MatrixFreePropagator(laplacian(5).action(), jnp.asarray(0.0))
    vector = jnp.array([1.0, -2e-7, 3e9, 4.1, 0.0])
    np.testing.assert_array_equal(free.apply(0, vector), vector)
    np.testing.assert_array_equal(free.relax(vector), np.zeros(5))


def test_vectors_of_very_different_sizes_do_not_spoil_each_other():
    operator = laplacian(8)
    free = MatrixFreePropagator(operator.action(), jnp.asarray(0.01))
    dense = operator.propagator(jnp.asarray(0.01), 1)
    combine = eqx.filter_jit(free.combine)
    z = jnp.linspace(-1.0, 1.0, 8)
    for size in (1e-200, 1e-12, 1e12, 0.0):
        found = combine(z, size * jnp.flip(z))
        expected = dense.combine(z, size * jnp.flip(z))
        tolerance = 1e-13 * max(1.0, size)
        np.testing.assert_allclose(found, expected, atol=tolerance)


def test_what_would_take_hours_is_nan_at_once():
    action = DenseAction(jnp.array([[-1.0, 2.0], [0.0, -3 * LARGEST_NORM]]))
    found = phi_sum(action, (jnp.ones(2), jnp.ones(2)))
    assert np.isnan(found).all()
    slopes = jax.grad(lambda v: phi_sum(action, (v,)).sum())(jnp.ones(2))
    assert np.isnan(slopes).all()


def test_single_precision_takes_fewer_products():
    matrix = np.asarray(laplacian(12).matrix()) * 1e-2
    counts = {}
    for dtype in (jnp.float32, jnp.float64):
        own = jnp.asarray(matrix, dtype)
        degree, stages = degree_and_stages(jnp.abs(own).sum(axis=0).max() / 2, dtype)
        counts[dtype] = int(degree * stages)
        vector = jnp.linspace(0.0, 1.0, 12, dtype=dtype)
        flow, _ = taylor_flow(
            lambda v, own=own: own @ v, DenseAction(own).discs(), vector
        )
        assert flow.dtype == dtype
        exact = (np.eye(12) + matrix_flow(0, jnp.asarray(matrix))[0]) @ vector
        np.testing.assert_allclose(flow, exact, atol=30 * jnp.finfo(dtype).eps)
    assert counts[jnp.float32] < counts[jnp.float64]


def free_value(matrix, step, vectors, weights):
    return weights @ phi_sum(ScaledAction(DenseAction(matrix), step), vectors)


def dense_value(matrix, step, vectors, weights):
    flow = matrix_flow(len(vectors) - 1, step * matrix)
    total = vectors[0] + sum(f @ v for f, v in zip(flow, vectors, strict=True))
    return weights @ total


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(3)
    matrix = jnp.asarray(rng.normal(size=(5, 5)) * 2 - 6 * np.eye(5))
    vectors = tuple(jnp.asarray(rng.normal(size=5)) for _ in range(3))
    return matrix, jnp.asarray(0.9), vectors, jnp.asarray(rng.normal(size=5))


def close(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("what", [(2,), (0, 1, 2)], ids=str)
def test_reverse_derivatives_equal_those_of_the_dense_form(problem, what):
    found = jax.jit(jax.grad(free_value, what))(*problem)
    close(found, jax.jit(jax.grad(dense_value, what))(*problem))


def test_forward_derivatives_equal_those_of_the_dense_form(problem):
    rng = np.random.default_rng(4)
    direction = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), problem
    )
    found = jax.jvp(jax.jit(free_value), problem, direction)
    close(found, jax.jvp(jax.jit(dense_value), problem, direction))


def test_derivatives_map_over_batches(problem):
    matrix, step, vectors, weights = problem
    batch = jax.tree.map(lambda v: jnp.stack([v, 2 * v, v - 1]), vectors)

    def loss(value, matrix, batch):
        over = jax.vmap(lambda v: value(matrix, step, v, weights))
        return jnp.sum(over(batch) ** 2)

    slopes = jax.jit(jax.grad(loss, (1, 2)), static_argnums=0)
    close(slopes(free_value, matrix, batch), slopes(dense_value, matrix, batch))
    slopes = jax.jit(jax.grad(loss, 2), static_argnums=0)
    close(slopes(free_value, matrix, batch), slopes(dense_value, matrix, batch))


def test_second_derivatives_are_right_in_the_vectors_and_refused_in_the_matrix(problem):
    matrix, step, vectors, weights = problem

    def slope(value, size):
        return jax.grad(lambda s: value(matrix, step, (s**2 * vectors[0],), weights))(
            size
        )

    second = jax.jit(jax.grad(slope, 1), static_argnums=0)
    close(second(free_value, 0.7), second(dense_value, 0.7))

    def slope_in_step(size):
        return jax.grad(lambda s: free_value(s * matrix, step, vectors, weights))(size)

    with pytest.raises(NotImplementedError, match="first derivatives only"):
        jax.grad(slope_in_step)(0.7)
