"""phi functions against 80-digit values (mpmath), their derivatives, and matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spnode_core.integrators.phi import matrix_flow, phi

REAL = {
    0.0: (1, 1, 0.5, 0.16666666666666667),
    -1e-8: (0.99999999000000005, 0.99999999500000002, 0.49999999833333334, 0.16666666625),
    -0.1: (0.90483741803595957, 0.95162581964040427, 0.48374180359595732, 0.16258196404042684),
    -1.0: (0.36787944117144232, 0.63212055882855768, 0.36787944117144232, 0.13212055882855768),
    -30.0: (9.3576229688401746e-14, 0.033333333333330214, 0.032222222222222326, 0.015592592592592589),
    -1e6: (0, 1e-6, 9.99999e-7, 4.99999000001e-7),
    -1e10: (0, 1e-10, 9.999999999e-11, 4.999999999e-11),
}  # fmt: skip
COMPLEX = {
    -1 + 2j: (
        0.36442310483055016 + 0.39433438042183807j,
        0.2848491312026252 + 0.17536388198341232j,
        0.11317572655283989 + 0.050987571122267457j,
    ),
    -0.001 + 30j: (
        -0.032900529615526127 + 0.028197854166396542j,
        0.00094107613842270628 + 0.034429986284646257j,
        0.0011482207181278095 + 0.016635259188028639j,
    ),
}
M1 = np.array([[-1, 100, 0], [0, -100, 1000], [0, 0, -1e4]])
M2 = np.array([[-1, 100, 3], [2, -300, 1000], [0, -50, -1e4]])
FIRST_ROWS = [
    (M1, 0, (0.36787944117144232, 0.37159539512266901, 0.037163255837850686)),
    (M1, 1, (0.63212055882855768, 0.62840460487733099, 0.062836744162149314)),
    (M2, 0, (0.7076733804654587, 0.23225078376139121, 0.023438185776815085)),
    (M2, 1, (0.84447635696820034, 0.27607486871682952, 0.027858485960195731)),
    (M2, 2, (0.44637570191492754, 0.14542602944156394, 0.014673729806134853)),
    (M2, 3, (0.15295349513817037, 0.049664598526548954, 0.005010878528215733)),
]


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_real_values_agree_with_80_digits_to_2e_15(order):
    z = jnp.array(list(REAL))
    expected = np.array([row[order] for row in REAL.values()])
    np.testing.assert_allclose(phi(order, z), expected, rtol=2e-15, atol=0)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_complex_values_agree_with_80_digits(order):
    z = jnp.array(list(COMPLEX))
    expected = np.array([row[order - 1] for row in COMPLEX.values()])
    np.testing.assert_allclose(phi(order, z), expected, rtol=3e-15, atol=0)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_float32_values_keep_single_precision(order):
    z = -jnp.logspace(-12, 6, 200, dtype=jnp.float32)
    exact = phi(order, z.astype(jnp.float64))
    np.testing.assert_allclose(phi(order, z), exact, rtol=5e-7)


@pytest.mark.parametrize(
    ("order", "slope", "curvature"),
    [(1, 1 / 2, 1 / 3), (2, 1 / 6, 1 / 12), (3, 1 / 24, 1 / 60)],
)
def test_derivatives_at_zero_are_finite_and_right(order, slope, curvature):
    first = jax.grad(lambda z: phi(order, z))
    assert first(0.0) == pytest.approx(slope, rel=1e-14)
    assert jax.grad(first)(0.0) == pytest.approx(curvature, rel=1e-14)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_derivatives_obey_their_recurrence(order):
    z = -jnp.logspace(-3, 6, 60)
    slope = jax.vmap(jax.grad(lambda v: phi(order, v)))(z)
    expected = (phi(order - 1, z) - order * phi(order, z)) / z
    far = np.asarray(-z > 1)  # nearer to 0 the recurrence itself cancels
    np.testing.assert_allclose(slope[far], expected[far], rtol=1e-12)


@pytest.mark.parametrize("z", [0.0, -1e-300, -1e308])
def test_gradients_are_finite_at_the_ends(z):
    for order in range(4):
        assert np.isfinite(jax.grad(lambda v, order=order: phi(order, v))(z))


def matrix_phi(order, matrix):
    """All phi functions up to an order, stacked."""
    return matrix_flow(order, matrix).at[0].add(jnp.eye(len(matrix)))


@pytest.mark.parametrize(("matrix", "order", "row"), FIRST_ROWS)
def test_matrix_values_agree_with_long_arithmetic(matrix, order, row):
    found = matrix_phi(order, jnp.asarray(matrix))[order, 0]
    np.testing.assert_allclose(found, row, rtol=1e-12)


@pytest.mark.parametrize("step", [1e-3, 1.0, 3.7e4])
def test_matrix_phi_of_a_graded_matrix_errs_by_its_norm_only(step):
    rates = np.array([1e-5, 0.3, 1e4])
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    matrix = basis @ np.diag(-rates) @ basis.T
    norm = np.abs(step * matrix).sum(axis=0).max()
    found = matrix_phi(1, jnp.asarray(step * matrix))[1]
    exact = basis @ np.diag(-np.expm1(-step * rates) / (step * rates)) @ basis.T
    tolerance = 1e-13 + 2e-15 * norm
    np.testing.assert_allclose(found, exact, atol=tolerance * np.abs(exact).max())


def test_matrix_exponential_at_1e9_is_finite_and_so_is_its_gradient():
    def largest(scale):
        return matrix_phi(0, scale * jnp.array([[-1.0, 2.0], [0.0, -1e7]])).sum()

    value, slope = jax.value_and_grad(largest)(1.0)
    assert value == pytest.approx(np.exp(-1) * (1 + 2 / (1e7 - 1)), rel=1e-8)
    assert slope != 0
    assert np.isfinite(slope)
    assert np.isfinite(largest(100.0))


def test_matrix_phi_at_zero_is_exactly_the_identity():
    phis = matrix_phi(3, jnp.zeros((4, 4)))
    np.testing.assert_array_equal(phis[0], np.eye(4))
    np.testing.assert_allclose(phis[3], np.eye(4) / 6, rtol=1e-15)
