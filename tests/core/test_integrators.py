"""Integrators: exact on linear problems, observed orders, and the relaxation form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from spnode_core.integrators.base import relaxation_step
from spnode_core.integrators.initialise import create_integrator
from spnode_core.linear.matrix import FixedOperator
from spnode_core.linear.modal import ModalOperator, ModalPropagator

NAMES = ("etd1", "etd2rk", "krogstad", "exprb32")


def integrate(name, linear, forcing, z, step, count, *, matrix_free=False):
    integrator = create_integrator(name, matrix_free=matrix_free)
    propagators = integrator.propagators(linear, jnp.asarray(step), None)

    def body(z, _):
        return integrator.step(forcing, propagators, jnp.asarray(step), z), None

    return jax.lax.scan(body, z, length=count)[0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("step", [1e-3, 1.0, 500.0])
def test_exact_on_linear_problems_with_constant_forcing(name, step):
    rows = ((-1.0, 100.0, 0.0), (0.0, -100.0, 50.0), (0.0, 0.0, -1e4))
    matrix, constant = np.array(rows), np.array([1.0, -2.0, 3.0])
    start = np.array([1.0, 0.5, -0.3])
    found = integrate(
        name, FixedOperator(rows), lambda z: jnp.asarray(constant), jnp.asarray(start),
        step, 3,
    )  # fmt: skip
    fixed = np.linalg.solve(matrix, -constant)
    exact = fixed + scipy.linalg.expm(3 * step * matrix) @ (start - fixed)
    # expm of norm 1.5e7 is itself only good to about 1e-16 times that.
    np.testing.assert_allclose(found, exact, rtol=1e-7, atol=1e-9)


def heat_problem(points=199):
    """u_t = u_xx + 1/(1+u^2) + source with u = x (1 - x) e^t, and time as a state."""
    x = np.arange(1, points + 1) / (points + 1)
    second = (
        np.diag(np.full(points, -2.0))
        + np.diag(np.ones(points - 1), 1)
        + np.diag(np.ones(points - 1), -1)
    ) * (points + 1) ** 2
    matrix = np.zeros((points + 1, points + 1))
    matrix[:-1, :-1] = second
    shape = jnp.asarray(x * (1 - x))

    def forcing(z):
        u, t = z[:-1], z[-1]
        exact = shape * jnp.exp(t)
        source = exact + 2 * jnp.exp(t) - 1 / (1 + exact**2)
        return jnp.append(1 / (1 + u**2) + source, 1.0)

    start = jnp.append(shape, 0.0)
    operator = FixedOperator(tuple(map(tuple, matrix.tolist())))
    return operator, forcing, start, np.e * np.asarray(shape)


@pytest.mark.parametrize(
    ("name", "order", "errors"),
    [
        ("etd1", 1, (1.60e-2, 7.68e-3, 3.75e-3)),
        ("etd2rk", 2, (4.14e-4, 1.06e-4, 2.68e-5)),
        ("krogstad", 4, (4.84e-7, 3.11e-8, 1.94e-9)),
        # Order 2 on paper: implicit-explicit methods lose it where A is stiff.
        ("imex_ssp2", 1.2, (5.59e-2, 2.46e-2, 1.04e-2)),
    ],
)
def test_observed_orders_on_a_stiff_heat_equation(name, order, errors):
    operator, forcing, start, exact = heat_problem()
    found = []
    for count in (16, 32, 64):
        end = integrate(name, operator, forcing, start, 1 / count, count)[:-1]
        found.append(np.linalg.norm(end - exact) / np.sqrt(200))
    slopes = np.log2(np.array(found[:-1]) / np.array(found[1:]))
    np.testing.assert_allclose(slopes, order, atol=0.15)
    np.testing.assert_allclose(found, errors, rtol=0.02)


@pytest.mark.parametrize("name", ["etd1", "etd2rk", "krogstad"])
def test_matrix_free_steps_equal_precomputed_ones(name):
    operator, forcing, start, exact = heat_problem(points=19)
    found = integrate(name, operator, forcing, start, 1 / 8, 8, matrix_free=True)
    expected = integrate(name, operator, forcing, start, 1 / 8, 8)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)
    assert np.abs(found[:-1] - exact).max() < 0.05


def test_etd1_is_the_augmented_exponential_with_one_column():
    rng = np.random.default_rng(0)
    matrix, z, f = rng.normal(size=(4, 4)) - 3 * np.eye(4), *rng.normal(size=(2, 4))
    operator = FixedOperator(tuple(map(tuple, matrix.tolist())))
    step = 0.8
    augmented = np.zeros((5, 5))
    augmented[:4, :4], augmented[:4, 4] = step * matrix, step * f
    exact = (scipy.linalg.expm(augmented) @ np.append(z, 1.0))[:4]
    for matrix_free in (True, False):
        found = integrate(
            "etd1", operator, lambda _: jnp.asarray(f), jnp.asarray(z), step, 1,
            matrix_free=matrix_free,
        )  # fmt: skip
        np.testing.assert_allclose(found, exact, rtol=1e-13)


def test_modes_stay_elementwise_where_matrix_free_is_asked_for():
    operator = ModalOperator(np.array([1.0, 1e9]))
    integrator = create_integrator("etd1", matrix_free=True)
    (propagator,) = integrator.propagators(operator, jnp.asarray(1.0), None)
    assert isinstance(propagator, ModalPropagator)


def coupled_problem():
    """Four states with rates to 1e5, whose nonlinear part feeds the stiff ones."""
    rows = ((-1, 3, 0, 0), (-3, -1, 5, 0), (0, 0, -1e3, 200), (0, 0, -50, -1e5))
    operator = FixedOperator(tuple(tuple(map(float, row)) for row in rows))

    def forcing(z):
        return jnp.stack([
            z[1] * z[2] + jnp.sin(z[0]),
            z[0] ** 2 - z[3],
            100 * z[0] * z[1] + jnp.cos(z[1]),
            1e3 * z[0] ** 2 + 10 * z[2],
        ])  # fmt: skip

    exact = np.array([0.1155960108, 0.3556868699, 0.005044033701, 1.315821855e-4])
    return operator, forcing, jnp.array([1.0, 0.5, 0.05, 0.01]), exact


@pytest.mark.parametrize(
    ("name", "lowest", "highest"), [("exprb32", 2.85, 3.15), ("etd1", 0.9, 1.1)]
)
def test_observed_orders_where_f_is_stiff_too(name, lowest, highest):
    operator, forcing, start, exact = coupled_problem()
    errors = [
        np.abs(integrate(name, operator, forcing, start, 2 / n, n) - exact).max()
        for n in (20, 40, 80, 160)
    ]
    slopes = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert (slopes > lowest).all(), slopes
    assert (slopes < highest).all(), slopes


@pytest.mark.parametrize("name", ["imex_ssp2", "exprb32", "rodas4"])
def test_nothing_moves_in_an_empty_step(name):
    operator, forcing, start, _ = coupled_problem()
    end = integrate(name, operator, forcing, start, 0.0, 1)
    np.testing.assert_array_equal(end, start)


def test_imex_has_order_2_where_nothing_is_stiff_and_errs_on_linear_problems():
    operator = FixedOperator(((-1.0, 2.0), (0.0, -3.0)))
    start = jnp.array([1.0, -0.5])
    errors = []
    for count in (8, 16, 32):
        found = integrate(
            "imex_ssp2", operator, lambda z: 0 * z, start, 1 / count, count
        )
        exact = scipy.linalg.expm(np.asarray(operator.matrix())) @ np.asarray(start)
        errors.append(np.abs(found - exact).max())
    slopes = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    np.testing.assert_allclose(slopes, 2, atol=0.2)
    assert errors[0] > 1e-4


def test_relaxation_steps_stay_in_the_box_under_random_steps():
    rng = np.random.default_rng(0)
    operator = ModalOperator(np.logspace(-5, 5, 6))
    bound = np.array([0.5, 1.0, 2.0, 0.1, 1.0, 3.0])
    z = start = jnp.asarray(rng.normal(size=6))
    box = np.maximum(np.abs(start), bound)
    integrator = create_integrator("etd1")
    for _ in range(300):
        step = jnp.asarray(10.0 ** rng.uniform(-9, 9))
        goal = jnp.asarray(bound * rng.choice([-1.0, 1.0], size=6))
        propagators = integrator.propagators(operator, step, None, is_relaxation=True)
        z = relaxation_step(lambda _, goal=goal: goal, propagators, z)
        assert (np.abs(z) <= box * (1 + 1e-15)).all()


def test_relaxation_step_is_etd1_on_minus_a_g():
    operator = ModalOperator(np.array([0.1, 2.0, 50.0, 3.0]), oscillating=1)
    z, step = jnp.array([1.0, -2.0, 0.5, 0.3, 0.7]), jnp.asarray(0.4)

    def target(v):
        return jnp.tanh(jnp.flip(v)) + 0.2

    integrator = create_integrator("etd1")
    propagators = integrator.propagators(operator, step, None)
    direct = integrator.step(lambda v: -operator.apply(target(v)), propagators, step, z)
    np.testing.assert_allclose(
        relaxation_step(target, propagators, z), direct, rtol=1e-13
    )
