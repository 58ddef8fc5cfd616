"""Rollouts: batches, times, paddings, inputs, derivatives and the invariant box."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import GRID, MASS, RATES, random_states, small_surrogate

from spnode_core.errors import InvalidInput
from spnode_core.rollout import rollout
from spnode_core.spec import (
    BilinearSpec,
    HurwitzSpec,
    LipschitzSpec,
    MLPSpec,
    ModalSpec,
    NoAutoencoderSpec,
    RatesSpec,
    RelaxationSpec,
    UniformStepsSpec,
)
from spnode_core.surrogate import cast_networks, trainable

MILD = RatesSpec(minimum=0.5, maximum=20.0)
VARIANTS = {
    "default": {},
    "positive": {"positive": True, "conserved": MASS},
    "conserving": {"conserved": MASS},
    "hurwitz": {"linear": HurwitzSpec(rates=RATES)},
    "matrix-free": {"linear": HurwitzSpec(rates=MILD), "propagators": "matrix_free"},
    "oscillating": {"linear": ModalSpec(rates=RATES, oscillating=2)},
    "no autoencoder": {"latent": 3, "autoencoder": NoAutoencoderSpec()},
    "krogstad": {
        "linear": HurwitzSpec(rates=MILD),
        "nonlinear": LipschitzSpec(bound=0.3),
        "integrator": "krogstad",
        "steps": UniformStepsSpec(step=0.25),
    },
    "etd2rk": {
        "linear": ModalSpec(rates=MILD),
        "nonlinear": BilinearSpec(),
        "integrator": "etd2rk",
        "steps": UniformStepsSpec(step=0.25),
    },
    "etd1 mlp": {
        "linear": ModalSpec(rates=MILD),
        "nonlinear": MLPSpec(),
        "steps": UniformStepsSpec(step=0.25),
    },
}
variants = pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS.keys())


# One shape for most tests, so that each variant compiles once.
TIMES = (0.3, 1.7, 3.0)
SCALE = np.array([1.0, 4e-5, 1.0])


@variants
def test_rows_and_times_do_not_depend_on_each_other(fields):
    surrogate = small_surrogate(**fields)
    x0 = random_states(2)
    batch = surrogate.rollout(x0, TIMES)
    assert batch.shape == (2, 3, 3)
    assert batch.dtype == jnp.float64
    with_another = surrogate.rollout(x0[::-1], TIMES)
    # Some processors round a row by its place; the engine's tiles do not let them.
    np.testing.assert_allclose(with_another[1], batch[0], rtol=1e-13, atol=0)
    among_others = surrogate.rollout(x0, (0.004, 1.7, 30.0))
    np.testing.assert_allclose(among_others[:, 1], batch[:, 1], rtol=1e-9)


def test_one_row_needs_no_batch_axis_and_equals_its_row_of_a_batch():
    surrogate = small_surrogate()
    x0 = random_states(3)
    alone = surrogate.rollout(x0[2], TIMES)
    np.testing.assert_allclose(alone, surrogate.rollout(x0, TIMES)[2], rtol=1e-9)


@variants
def test_padding_the_plan_is_exact(fields):
    surrogate = small_surrogate(**fields)
    x0 = jnp.asarray(random_states(2))
    plan = surrogate.grid.plan(TIMES)
    padded = eqx.filter_jit(rollout)(surrogate, x0, plan.padded(32, 8))
    expected = surrogate.rollout(x0, TIMES)
    np.testing.assert_allclose(padded[:, :3], expected, rtol=1e-13, atol=1e-18)
    np.testing.assert_array_equal(padded[:, 3:], np.repeat(padded[:, 2:3], 5, axis=1))


@variants
def test_gradients_agree_with_finite_differences(fields):
    surrogate = small_surrogate(**fields)
    x0 = random_states(2)
    for i, size in enumerate([1e-5, 4e-10, 1e-5]):
        tangent = np.broadcast_to(np.eye(3)[i], (2, 3))
        _, slope = jax.jvp(
            lambda x: surrogate.rollout(x, TIMES),
            (jnp.asarray(x0),),
            (jnp.asarray(tangent),),
        )
        above = surrogate.rollout(x0 + size * tangent, TIMES)
        below = surrogate.rollout(x0 - size * tangent, TIMES)
        numeric = np.asarray(above - below) / (2 * size) / SCALE
        scale = np.abs(numeric).max()
        np.testing.assert_allclose(
            np.asarray(slope) / SCALE, numeric, atol=1e-6 * scale
        )


@variants
def test_a_way_back_that_computes_steps_again_gives_the_same(fields):
    surrogate = small_surrogate(parameters=1, controls=1, **fields)
    plan = surrogate.grid.plan(TIMES, (0.0, 1.0))
    inputs = (jnp.asarray(random_states(2)), jnp.full((2, 1), 1.2))
    controls = jnp.asarray([[[0.5], [-0.5]]] * 2)

    def gradients(recomputed):
        def total(x0, parameters, controls):
            given = (surrogate, x0, plan, parameters, controls)
            return jnp.sum(rollout(*given, recomputed=recomputed) ** 2)

        return jax.grad(total, argnums=(0, 1, 2))(*inputs, controls)

    for found, expected in zip(gradients(True), gradients(False), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-15)


@variants
def test_parameter_gradients_are_finite_and_reach_every_trained_array(fields):
    surrogate = small_surrogate(**fields)
    x0 = jnp.asarray(random_states(2))
    plan = surrogate.grid.plan([0.0, 0.01, 1.7])
    params, static = eqx.partition(surrogate, trainable(surrogate))

    def loss(params):
        x = rollout(eqx.combine(params, static), x0, plan)
        return ((x / SCALE[None, None]) ** 2).sum()

    slopes = jax.jit(jax.grad(loss))(params)
    assert slopes.normaliser.states.scale is None
    for path, leaf in jax.tree_util.tree_leaves_with_path(slopes):
        assert np.isfinite(leaf).all(), path
        unused = leaf.size == 0 or "lower_" in jax.tree_util.keystr(path)
        assert unused or np.abs(leaf).max() > 0, path


@pytest.mark.parametrize("name", ["default", "conserving", "positive", "oscillating"])
def test_models_never_leave_their_certified_box(name):
    surrogate = small_surrogate(**VARIANTS[name])
    certificate = surrogate.certificate()["invariant_box"]
    assert certificate["holds"]
    rng = np.random.default_rng(1)
    x0 = jnp.asarray(random_states(64))
    times = np.sort(10.0 ** rng.uniform(-8, 12, 300))
    plan = surrogate.grid.plan(times)
    z = rollout(surrogate, x0, plan, latent=True)
    reached = np.abs(np.asarray(z)).max(axis=(0, 1))
    assert (reached <= certificate["latent_bound"]).all()
    x = np.asarray(rollout(surrogate, x0, plan))
    for i, (low, high) in enumerate(certificate["states"].values()):
        assert x[..., i].min() >= low
        assert x[..., i].max() <= high


@pytest.mark.parametrize("name", ["hurwitz", "etd2rk", "krogstad"])
def test_certificates_say_where_they_do_not_hold(name):
    box = small_surrogate(**VARIANTS[name]).certificate()["invariant_box"]
    assert not box["holds"]
    assert "No invariant box is known" in box["statement"]


def test_stability_certificate_is_the_abscissa_of_the_matrix():
    surrogate = small_surrogate(linear=HurwitzSpec(rates=RATES))
    found = surrogate.certificate()["spectral_abscissa"]
    matrix = np.asarray(surrogate.dynamics.linear.matrix())
    assert found["value"] == pytest.approx(np.linalg.eigvals(matrix).real.max())
    assert found["holds"]


@given(
    times=st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=3).map(sorted),
    conserved=st.floats(0.9, 1.1),
)
@settings(max_examples=5, deadline=None)
def test_mass_is_conserved_at_any_time(times, conserved):
    surrogate = small_surrogate(conserved=MASS)
    x0 = np.array([0.5, 1e-5, conserved - 0.5 - 1e-5])
    total = surrogate.rollout(x0, times).sum(axis=-1)
    np.testing.assert_allclose(total, conserved, rtol=1e-14)


def test_controls_act_from_their_own_time_on():
    surrogate = small_surrogate(controls=1)
    x0, times = random_states(1)[0], np.array([0.1, 0.5, 0.7, 2.0])
    run = surrogate.rollout
    low = run(x0, times, controls=[[0.0], [0.0]], control_times=[0.0, 0.5])
    high = run(x0, times, controls=[[0.0], [1.0]], control_times=[0.0, 0.5])
    np.testing.assert_allclose(low[:2], high[:2], rtol=1e-12)
    assert (np.abs(low[2:] - high[2:]).max(axis=1) > 1e-9).all()


def test_parameters_change_every_part_and_differ_by_row():
    surrogate = small_surrogate(
        parameters=2, linear=ModalSpec(rates=RATES, depends_on_parameters=True)
    )
    x0 = np.repeat(random_states(1), 2, axis=0)
    x = surrogate.rollout(x0, [0.0, 1.0], parameters=[[1.0, 1.0], [1.5, 0.6]])
    assert np.abs(x[0, 1] - x[1, 1]).max() > 1e-6
    shared = surrogate.rollout(x0, [1.0], parameters=[1.5, 0.6])
    np.testing.assert_allclose(shared[0], shared[1], rtol=1e-14)
    np.testing.assert_allclose(shared[1, 0], x[1, 1], rtol=1e-9)


def test_rows_may_have_their_own_output_times():
    surrogate = small_surrogate()
    x0 = jnp.asarray(random_states(2))
    times = np.array([[0.1, 0.2], [3.0, 700.0]])
    x = eqx.filter_jit(rollout)(surrogate, x0, surrogate.grid.plan(times))
    for row in range(2):
        alone = surrogate.rollout(x0[row], times[row])
        np.testing.assert_allclose(x[row], alone, rtol=1e-9)


def test_vmap_and_jit_agree_with_the_batch():
    surrogate = small_surrogate()
    x0 = jnp.asarray(random_states(3))
    one = jax.jit(jax.vmap(lambda x: surrogate.rollout(x, GRID)))
    np.testing.assert_allclose(one(x0), surrogate.rollout(x0, GRID), rtol=1e-9)


def test_single_precision_networks_stay_close_to_double():
    double = small_surrogate()
    single = cast_networks(double, jnp.float32)
    assert double.autoencoder.encoder_matrix.dtype == jnp.float64
    x0 = random_states(4)
    found, exact = single.rollout(x0, GRID), double.rollout(x0, GRID)
    difference = np.asarray(found - exact) / SCALE
    assert 0 < np.abs(difference).max() < 2e-5


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"x0": [1.0, 2.0]}, r"x0: found shape \(1, 2\); expected .*\(batch, 3\).*a, b, c"),
        ({"x0": [1.0, np.nan, 0.0]}, r"x0\[1\]: found nan"),
        ({"x0": "abc"}, "x0.*numbers"),
        ({"times": [1.0, -1.0]}, r"times\[1\].*at least 0"),
        ({"parameters": [1.0]}, "parameters: found values; expected none"),
        ({"controls": [[1.0]]}, "controls: found values; expected none"),
        ({"x0": [1.0, 1j, 0.0]}, "x0.*numbers"),
        ({"times": [[1.0], [2.0]]}, r"times: found shape \(2, 1\); expected .*: 1"),
    ],
)  # fmt: skip
def test_wrong_inputs_are_refused_by_name(inputs, words):
    surrogate = small_surrogate()
    arguments = {"x0": [0.5, 1e-5, 0.4], "times": [1.0], **inputs}
    with pytest.raises(InvalidInput, match=words):
        surrogate.rollout(**arguments)


def test_missing_parameters_and_controls_are_refused_by_name():
    surrogate = small_surrogate(parameters=1, controls=1)
    x0 = [0.5, 1e-5, 0.4]
    with pytest.raises(InvalidInput, match=r"parameters: found none.*p0"):
        surrogate.rollout(x0, [1.0])
    with pytest.raises(InvalidInput, match="control_times: found none"):
        surrogate.rollout(x0, [1.0], parameters=[1.0], controls=[[1.0], [2.0]])


def test_controls_that_begin_after_the_rollout_are_refused():
    surrogate = small_surrogate(controls=1)
    with pytest.raises(InvalidInput, match=r"control_times: .*100.*begins with 0"):
        surrogate.rollout(
            [0.5, 1e-5, 0.4], [1.0], controls=[[0.0], [1.0]], control_times=[100, 101]
        )


def test_traced_times_are_refused_with_the_reason():
    surrogate = small_surrogate()
    with pytest.raises(InvalidInput, match=r"times: .*no jit, grad or vmap"):
        jax.jit(lambda t: surrogate.rollout([0.5, 1e-5, 0.4], t))(jnp.ones(2))


def test_computing_without_x64_is_refused():
    surrogate = small_surrogate()
    with (
        jax.enable_x64(False),
        pytest.raises(InvalidInput, match="jax_enable_x64"),
    ):
        surrogate.rollout([0.5, 1e-5, 0.4], [1.0])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"conserved": {"mass": {"zzz": 1.0}}}, "conserved.mass.*'zzz'.*a, b, c"),
        ({"latent": 4, "autoencoder": NoAutoencoderSpec()}, "latent.*3, the number"),
    ],
)
def test_specs_that_do_not_fit_are_refused_by_field(fields, words):
    with pytest.raises(InvalidInput, match=words):
        small_surrogate(**fields)


@pytest.mark.parametrize("integrator", ["etd2rk", "krogstad"])
def test_relaxation_insists_on_etd1(integrator):
    with pytest.raises(ValueError, match="does not converge on the relaxation"):
        small_surrogate(integrator=integrator, nonlinear=RelaxationSpec())


def test_what_is_known_already_is_no_tracer() -> None:
    surrogate = small_surrogate(parameters=1)
    x0, times = jnp.asarray(random_states(2)), [0.1, 10.0]
    p = jnp.array([0.7])

    def closed_over(p):
        return surrogate.rollout(x0, times, parameters=p)

    expected = surrogate.rollout(x0, times, parameters=p)
    np.testing.assert_allclose(jax.jit(closed_over)(p), expected, rtol=1e-6)
    lost = x0.at[1, 2].set(jnp.nan)
    with pytest.raises(InvalidInput, match=r"x0\[1, 2\]"):
        jax.jit(lambda p: surrogate.rollout(lost, times, parameters=p))(p)


def test_rows_of_any_input_are_rows_of_the_rollout() -> None:
    surrogate = small_surrogate(parameters=1, controls=1)
    x0, times = random_states(1)[0], [0.1, 10.0]
    p, u = np.array([[0.7], [1.1], [1.9]]), np.array([[0.5]])
    # One control interval needs no time.
    found = surrogate.rollout(x0, times, parameters=p, controls=u)
    assert found.shape == (3, 2, 3)
    for row in range(3):
        alone = surrogate.rollout(
            x0, times, parameters=p[row], controls=u, control_times=[0.0]
        )
        np.testing.assert_allclose(found[row], alone, rtol=1e-6)
    held = surrogate.rollout(x0, times, parameters=p[0], controls=np.zeros((4, 1, 1)))
    assert held.shape == (4, 2, 3)
    with pytest.raises(InvalidInput, match="parameters: found shape"):
        surrogate.rollout(random_states(2), times, parameters=p, controls=u)
    with pytest.raises(InvalidInput, match="control_times: found none"):
        surrogate.rollout(x0, times, parameters=p[0], controls=np.zeros((2, 1)))


def test_a_time_that_comes_twice_gives_its_state_twice():
    x = small_surrogate().rollout(random_states(1)[0], [0.3, 1.0, 1.0, 2.0])
    np.testing.assert_array_equal(x[1], x[2])
