"""Functions of JAX and SciPy whose rows fail alone, ``on_error="mask"``."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import least_squares

from spnode_client import Client, InvalidRequest
from tests.core.models import random_states

jax.config.update("jax_enable_x64", True)

pytestmark = pytest.mark.filterwarnings("ignore::spnode_client.DomainWarning")

TIMES = np.array([0.3, 1.7])
K = jnp.array([1.3, 0.8])
GOOD = random_states(2, seed=3)
# A row that leaves the finite range, and one that a search has lost already.
ROWS = jnp.asarray([GOOD[0], [1e308] * 3, GOOD[1], [np.nan] * 3])
FINE = np.array([0, 2])
SAME = {"rtol": 1e-9, "atol": 1e-12}


@pytest.fixture(scope="module")
def model(service):
    with Client(service.url, service.key, timeout_s=600, retries=0) as client:
        client.transport.http.headers["request-timeout"] = "600"
        yield client.model("kinetics/1")


@pytest.fixture(scope="module")
def both(model):
    return [
        lambda x0, k=K, f=f: f(x0, TIMES, parameters=k)
        for f in (
            model.as_jax(precision="float64"),
            model.as_jax(precision="float64", on_error="mask"),
        )
    ]


def others_are_nan(found, expected):
    np.testing.assert_allclose(np.asarray(found)[FINE], expected, **SAME)
    assert np.isnan(np.delete(found, FINE, axis=0)).all()


def test_rows_that_fail_are_nan_beside_the_others(both):
    plain, masked = both
    with pytest.raises(InvalidRequest, match="on_error: mask gives the other rows"):
        jax.vmap(plain)(ROWS[:3])
    others_are_nan(jax.vmap(masked)(ROWS), plain(GOOD))
    others_are_nan(jax.jit(jax.vmap(masked))(ROWS), plain(GOOD))
    assert np.isnan(masked(ROWS[1])).all()
    assert masked(jnp.zeros((0, 3))).shape == (0, 2, 3)
    # No row is left to ask for.
    assert np.isnan(masked(ROWS[3:])).all()


def test_the_derivatives_of_rows_that_fail_are_nan(both):
    plain, masked = both

    def loss(f):
        return lambda x0: jnp.sum((f(x0) - 1.0) ** 2)

    for of in (
        lambda f: jax.vmap(jax.grad(loss(f))),
        lambda f: jax.vmap(jax.jacfwd(f)),
        lambda f: jax.vmap(jax.jacrev(f)),
        lambda f: jax.vmap(jax.hessian(loss(f))),
    ):
        others_are_nan(of(masked)(ROWS), of(plain)(GOOD))


def test_a_loss_that_leaves_them_out_has_the_gradient_of_the_others(both):
    plain, masked = both

    def loss(f, x0):
        return lambda k: jnp.sum(jnp.sin(jnp.nan_to_num(f(x0, k))))

    for of in (jax.grad, jax.hessian):
        found, expected = of(loss(masked, ROWS))(K), of(loss(plain, GOOD))(K)
        np.testing.assert_allclose(found, expected, **SAME)
    by_x0 = jax.grad(lambda x0: jnp.nansum(masked(x0)))(ROWS)
    assert (by_x0[jnp.array([1, 3])] == 0).all()


def test_a_search_steps_back_from_where_the_rollout_fails(model):
    observed = np.asarray(model.rollout(GOOD[0], TIMES, parameters=K))
    options = {"vary": ["x0"], "observations": observed, "precision": "float64"}
    f = model.as_scipy(GOOD[0], TIMES, K, **options, on_error="mask")
    for away in (np.full(3, 1e308), np.full(3, np.nan)):
        assert np.isnan(f.fun(away)).all()
        assert np.isnan(f.jac(away)).all()
        assert f.value_and_gradient(away)[0] == np.inf
    with pytest.raises(InvalidRequest, match="not finite"):
        model.as_scipy(GOOD[0], TIMES, K, **options).fun(np.full(3, 1e308))

    far = iter([1e308])

    def fun(vector):
        # The first step of the search goes too far.
        is_start = np.array_equal(vector, start)
        return f.fun(vector if is_start else vector + next(far, 0.0))

    start = GOOD[1]
    found = least_squares(fun, start, jac=f.jac, x_scale="jac", max_nfev=200)
    assert np.isfinite(found.fun).all()
    assert found.cost < 0.5 * (f.fun(start) ** 2).sum()


def test_another_word_is_refused(model):
    with pytest.raises(ValueError, match="on_error: found 'skip'; expected 'raise'"):
        model.as_jax(on_error="skip")
