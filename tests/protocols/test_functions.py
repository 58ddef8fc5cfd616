"""Rollouts in the service as functions of JAX and SciPy, against this process."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import check_grad, least_squares, minimize

from spnode_client import Client, InvalidRequest
from spnode_core.surrogate import cast_networks
from tests.core.models import random_states

jax.config.update("jax_enable_x64", True)

TIMES = np.array([0.3, 1.7, 3.0])
K = jnp.array([1.3, 0.8])
X0 = jnp.asarray(random_states(4, seed=3))
EXACT = {"rtol": 1e-10, "atol": 1e-13}


@pytest.fixture(scope="module")
def client(service):
    with Client(service.url, service.key, timeout_s=600, retries=0) as client:
        client.transport.http.headers["request-timeout"] = "600"
        yield client


@pytest.fixture(scope="module")
def remote(client):
    f = client.model("kinetics/1").as_jax(precision="float64")
    return lambda x0, times, k=None: f(x0, times, parameters=k)


@pytest.fixture(scope="module")
def local(service):
    surrogate = service.surrogates["kinetics"]
    return lambda x0, times, k: surrogate.rollout(x0, times, parameters=k)


def asked(client, call):
    """What a call gives, and how many requests it took."""
    seen = []
    client.transport.http.event_hooks["request"] = [seen.append]
    found = jax.block_until_ready(call())
    client.transport.http.event_hooks["request"] = []
    return found, len(seen)


def loss(f):
    return lambda x0, k: jnp.sum(jnp.sin(f(x0, TIMES, k)[1:]))


def test_jax_values_and_derivatives_are_those_of_this_process(remote, local):
    args = (X0[0], K)
    np.testing.assert_allclose(remote(X0[0], TIMES, K), local(X0[0], TIMES, K), **EXACT)
    for transform in (
        lambda f: jax.grad(loss(f), (0, 1)),
        lambda f: jax.jit(jax.grad(loss(f), 1)),
        lambda f: jax.jacfwd(lambda x0, k: f(x0, TIMES, k), (0, 1)),
        lambda f: jax.jacrev(lambda x0, k: f(x0, TIMES, k), (0, 1)),
        lambda f: lambda x0, k: jax.jvp(lambda k: f(x0, TIMES, k), (k,), (k,)),
        lambda f: jax.hessian(loss(f), 1),
        lambda f: jax.grad(lambda x0, k: jnp.sum(jax.grad(loss(f), 0)(x0, k) ** 2), 1),
    ):
        found, expected = transform(remote)(*args), transform(local)(*args)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, **EXACT), found, expected
        )


def test_a_vmap_of_any_depth_is_one_request(client, remote, local):
    def one(x0):
        return remote(x0, TIMES, K)

    found, requests = asked(client, lambda: jax.vmap(one)(X0))
    assert requests == 1
    expected = jnp.stack([local(each, TIMES, K) for each in X0])
    np.testing.assert_allclose(found, expected, **EXACT)
    ks = jnp.stack([K, 1.2 * K])
    both = jax.vmap(lambda k: jax.vmap(lambda x0: remote(x0, TIMES, k))(X0))
    found, requests = asked(client, lambda: both(ks))
    assert (requests, found.shape) == (1, (2, 4, 3, 3))
    np.testing.assert_allclose(found[1, 2], local(X0[2], TIMES, 1.2 * K), **EXACT)
    gradients, requests = asked(
        client, lambda: jax.vmap(jax.grad(loss(remote)), (0, None))(X0, K)
    )
    assert requests == 2, "the value's shape is known: one rollout and one pullback"
    expected = jax.grad(loss(local))(X0[3], K)
    np.testing.assert_allclose(gradients[3], expected, **EXACT)


def test_jax_rows_and_final_states(client, local):
    final = client.model("kinetics/1").as_jax(
        final=True, states=["c"], precision="float64"
    )
    found = final(X0, TIMES, parameters=K)
    assert found.shape == (4, 1)
    np.testing.assert_allclose(found[1, 0], local(X0[1], TIMES, K)[-1, 2], **EXACT)


def test_jax_outside_of_compiled_code_compiles_nothing_for_a_call(
    client, remote, monkeypatch
):
    step = jax.value_and_grad(loss(remote))
    before = step(X0[0], K)
    monkeypatch.setattr(jax, "pure_callback", None)
    after = step(X0[0], K)
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_array_equal(after[1], before[1])
    # Nothing is hidden in an error of the runtime.
    with pytest.raises(InvalidRequest, match="x0"):
        remote(jnp.full(3, jnp.nan), TIMES, K)


def test_a_batch_without_rows_is_no_request(client, remote):
    empty = jnp.zeros((0, 3))
    found, requests = asked(
        client, lambda: jax.vmap(lambda x: remote(x, TIMES, K))(empty)
    )
    assert (found.shape, requests) == ((0, 3, 3), 0)
    gradient, requests = asked(
        client, lambda: jax.grad(lambda x: remote(x, TIMES, K).sum())(empty)
    )
    assert (gradient.shape, requests) == ((0, 3), 0)


def test_jax_says_what_it_cannot_do(client, remote):
    with pytest.raises(NotImplementedError, match=r"jax\.hessian"):
        jax.jacfwd(jax.jacfwd(loss(remote)))(X0[0], K)
    with pytest.raises(ValueError, match=r"times: found .*not traced"):
        jax.jit(remote)(X0[0], TIMES, K)
    with pytest.raises(ValueError, match="parameters: found None; expected an array"):
        remote(X0[0], TIMES)
    with pytest.raises(ValueError, match="states: found 'z'; expected some of a, b, c"):
        client.model("kinetics/1").as_jax(states=["z"])
    with pytest.raises(ValueError, match=r"controls: found .*, or control_times, when"):
        client.model("forced/1").as_jax()(
            X0[0], TIMES, parameters=K[:1], controls=jnp.ones((2, 2))
        )


SWITCHES = [0.0, 0.5]
U = jnp.array([[0.3, -0.2], [0.1, 0.4]])


@pytest.fixture(scope="module")
def forced(service):
    """The model with controls in this process, its float32 networks in float64."""
    exact = cast_networks(service.surrogates["forced"], jnp.float64)

    def rollout(x0, k, u):
        given = {"parameters": k, "controls": u, "control_times": np.array(SWITCHES)}
        return exact.rollout(x0, TIMES, **given)

    return rollout


def test_controls_are_differentiated_too(client, forced):
    f = client.model("forced/1").as_jax(precision="float64")

    def remote(x0, k, u):
        return f(x0, TIMES, parameters=k, controls=u, control_times=SWITCHES)

    args, every = (X0[0], K[:1], U), (0, 1, 2)
    along = (1e-5 * X0[1], K[1:], U[::-1])
    for transform in (
        lambda f: f,
        lambda f: jax.jacrev(f, every),
        lambda f: lambda *a: jax.jvp(f, a, along)[1],
        lambda f: jax.hessian(lambda *a: jnp.sum(jnp.sin(f(*a))), 2),
    ):
        found, expected = transform(remote)(*args), transform(forced)(*args)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, **EXACT), found, expected
        )


def test_scipy_holds_the_controls(client, forced):
    f = client.model("forced/1").as_scipy(
        *(X0[0], TIMES, K[:1]),
        vary=["x0", "parameters"],
        controls=U,
        control_times=SWITCHES,
        precision="float64",
    )
    assert f.names == ("a", "b", "c", "p0")
    args = X0[0], K[:1]
    expected = np.dstack(jax.jacfwd(lambda x0, k: forced(x0, k, U), (0, 1))(*args))
    np.testing.assert_allclose(f.fun(f.start), forced(*args, U).ravel(), **EXACT)
    np.testing.assert_allclose(f.jac(f.start), expected.reshape(9, 4), **EXACT)


def test_constant_controls_need_no_times_and_may_be_unknowns(client, service):
    model = client.model("forced/1")
    constant, k = U[:1], K[:1]
    expected = service.surrogates["forced"].rollout(
        X0[0], TIMES, parameters=k, controls=constant, control_times=np.zeros(1)
    )
    found = model.as_jax()(X0[0], TIMES, parameters=k, controls=constant)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)
    f = model.as_scipy(X0[0], TIMES, k, vary=["u1", "p0"], controls=constant)
    assert f.names == ("u1", "p0")
    assert (f.start == [U[0, 1], k[0]]).all()
    exact = model.as_jax(precision="float64")
    by = jax.jacfwd(lambda u: exact(X0[0], TIMES, parameters=k, controls=u).ravel())(
        constant
    )
    same = model.as_scipy(
        X0[0], TIMES, k, vary="controls", controls=constant, precision="float64"
    )
    np.testing.assert_allclose(same.jac(same.start), by[:, 0], **EXACT)
    domain = model.version.record["signature"]["domain"]
    assert f.bounds.lb[0] == domain["controls_lower"][1]
    with pytest.raises(ValueError, match=r"expected some of x0, .*they have one int"):
        model.as_scipy(X0[0], TIMES, k, vary="u0", controls=U, control_times=SWITCHES)
    several = np.broadcast_to(constant, (4, 1, 2))
    with pytest.raises(ValueError, match=r"controls: found .*\(4, 1, 2\); expected"):
        model.as_scipy(X0[0], TIMES, k, controls=several)


def test_a_text_is_one_name_and_what_a_model_lacks_is_not_offered(client):
    f = client.model("kinetics/1").as_scipy(X0[0], TIMES, K, vary="p1")
    assert f.names == ("p1",)
    with pytest.raises(
        ValueError, match=r"found 'beta'; expected some of x0, a, b, c$"
    ):
        client.model("plain/1").as_scipy(X0[0], TIMES, vary="beta")


def test_scipy_recovers_parameters(client, local):
    model = client.model("kinetics/1")
    truth = np.array([1.1, 0.9])
    observed = np.array(local(X0[0], TIMES, truth))
    observed[1, 2] = np.nan
    f = model.as_scipy(
        X0[0],
        TIMES,
        K,
        vary=["parameters"],
        observations=observed,
        noise=[1e-2, 1e-6, 1e-2],
        precision="float64",
    )
    assert f.names == ("p0", "p1")
    assert f.fun(f.start).shape == (8,)
    error = check_grad(
        lambda v: f.value_and_gradient(v)[0],
        lambda v: f.value_and_gradient(v)[1],
        f.start,
    )
    assert error < 1e-3 * np.linalg.norm(f.value_and_gradient(f.start)[1])
    found = least_squares(f.fun, f.start, jac=f.jac)
    np.testing.assert_allclose(found.x, truth, rtol=1e-5)
    again = minimize(f.value_and_gradient, f.start, jac=True)
    np.testing.assert_allclose(again.x, truth, rtol=1e-2)
    assert set(f.inputs(found.x)) == {"x0", "parameters"}


def test_scipy_has_the_derivatives_of_this_process(client, local):
    weights = 1 / np.array([1e-2, 1e-6, 1e-2])
    f = client.model("kinetics/1").as_scipy(
        *(X0[0], TIMES, K),
        vary=["x0", "parameters"],
        observations=np.zeros((3, 3)),
        noise=1 / weights,
        precision="float64",
    )

    def residuals(x0, k):
        return (local(x0, TIMES, k) * weights[None, :]).ravel()

    expected = np.hstack(jax.jacfwd(residuals, (0, 1))(X0[0], K))
    assert f.names == ("a", "b", "c", "p0", "p1")
    np.testing.assert_allclose(f.fun(f.start), residuals(X0[0], K), **EXACT)
    sizes = np.abs(expected).max(axis=0)
    np.testing.assert_allclose(f.jac(f.start) / sizes, expected / sizes, **EXACT)
    value, gradient = f.value_and_gradient(f.start)
    half = residuals(X0[0], K)
    np.testing.assert_allclose(value, half @ half / 2, rtol=1e-10)
    np.testing.assert_allclose(gradient, half @ expected, rtol=1e-10)


def test_scipy_varies_single_entries_and_names_what_is_wrong(client):
    model = client.model("kinetics/1")
    f = model.as_scipy(X0[0], TIMES, K, vary=["b", "p1"])
    assert f.names == ("b", "p1")
    assert f.jac(f.start).shape == (9, 2)
    domain = model.version.record["signature"]["domain"]
    lower = [domain["lower"][1], domain["parameters_lower"][1]]
    upper = [domain["upper"][1], domain["parameters_upper"][1]]
    # With two entries a pair would mean one thing to one of them, else to the other.
    for search, fun in (
        (least_squares, lambda v: v - 1e6),
        (minimize, lambda v: ((v - 1e6) ** 2).sum()),
    ):
        found = search(fun, np.add(lower, upper) / 2, bounds=f.bounds).x
        np.testing.assert_allclose(found, upper, rtol=1e-3)
        assert (found >= lower).all()
    for options, said in (
        ({"vary": ["q"]}, "vary: found 'q'"),
        ({"vary": ["x0", "a"]}, "expected each entry once"),
        ({"noise": 0.0}, "noise: found 0; expected numbers above 0"),
        ({"observations": np.zeros((2, 3))}, r"observations: .*expected \(3, 3\)"),
    ):
        with pytest.raises(ValueError, match=said):
            model.as_scipy(X0[0], TIMES, K, **options)
    with pytest.raises(ValueError, match=r"vector: .*expected 2 numbers: b, p1"):
        f.fun([1.0])
    # A complex step would find that nothing depends on anything.
    with pytest.raises(ValueError, match="complex128; expected real numbers"):
        least_squares(f.fun, f.start, jac="cs")


def test_a_model_stays_the_version_that_it_was(client):
    model = client.model("kinetics/1")
    assert repr(model).startswith("Model('kinetics/1'")
    assert model.states == ("a", "b", "c")
