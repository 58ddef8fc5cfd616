"""Certified training: what is refused with its reason, and what it guarantees."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from spnode_core import check_arrays, fit, generate
from spnode_core.errors import InvalidInput
from spnode_core.rollout import restarted
from spnode_core.spec import (
    BilinearSpec,
    ContractingSpec,
    DenseSpec,
    HurwitzSpec,
    LipschitzSpec,
    ModalSpec,
    NoAutoencoderSpec,
    QuadraticSpec,
    RelaxationSpec,
    SurrogateSpec,
    TrainingSpec,
    certified_surrogate,
)
from spnode_core.timegrid import TimeGrid
from spnode_core.training.certified import check_settling

TIMES = np.linspace(0, 20, 101)
SMALL = TrainingSpec(iterations=60, batch=16, refine=1, polish="none")


def solved(slope, starts, times=TIMES, noise=0.0, **more):
    """A dataset of solutions, each state with noise in parts of its range."""
    states = np.stack(
        [
            solve_ivp(
                slope,
                (0, times[-1]),
                start,
                t_eval=times,
                method="LSODA",
                rtol=1e-8,
                atol=1e-10,
            ).y.T
            for start in starts
        ]
    )
    draws = np.random.default_rng(0).normal(size=states.shape)
    states = states + noise * np.ptp(states, axis=(0, 1)) * draws
    return check_arrays({"states": states, "times": times, **more})


def starts(low, high, size=2):
    return np.random.default_rng(1).uniform(low, high, (12, size))


def van_der_pol(_, x):
    return [x[1], 2 * (1 - x[0] ** 2) * x[1] - x[0]]


def bistable(_, x):
    return [x[0] - x[0] ** 3]


def reversible(_, x):
    return [-x[0] + 0.5 * x[1], x[0] - 0.5 * x[1]]


def damped(_, x):
    return [x[1], -x[0] - 0.2 * x[1]]


def decaying(_, x):
    return [-x[0], x[0] - 0.2 * x[1]]


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_a_limit_cycle_is_refused(noise):
    data = solved(van_der_pol, starts(-2, 2), noise=noise)
    with pytest.raises(InvalidInput, match="the data recurs"):
        check_settling(data, {})


def test_undamped_oscillation_is_refused():
    data = solved(lambda _, x: [x[1], -x[0]], starts(-2, 2))
    with pytest.raises(InvalidInput, match="the data recurs"):
        check_settling(data, {})


def test_chaos_is_refused():
    with pytest.raises(InvalidInput, match="no limit cycles and no chaos"):
        check_settling(generate("kuramoto_sivashinsky", 10, 3), {})


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_two_equilibria_are_refused(noise):
    data = solved(bistable, starts(-1.5, 1.5, 1), noise=noise)
    with pytest.raises(InvalidInput, match="several equilibria: trajectories"):
        check_settling(data, {})


def test_equilibria_that_a_conserved_sum_tells_apart_are_accepted():
    data = solved(reversible, starts(0, 1))
    check_settling(data, {"mass": {"x1": 1.0, "x2": 1.0}})
    with pytest.raises(InvalidInput, match="belongs into surrogate"):
        check_settling(data, {})


def test_equilibria_of_different_parameters_are_accepted():
    values = np.repeat([[-1.0], [0.0], [1.0]], 4, axis=0)
    states = np.stack(
        [p + np.exp(-TIMES)[:, None] * (0.2 * i) for i, p in enumerate(values[:, 0])]
    )
    arrays = {"states": states, "times": TIMES}
    check_settling(check_arrays({**arrays, "parameters": values}), {})
    with pytest.raises(InvalidInput, match="several equilibria"):
        check_settling(check_arrays(arrays), {})


def test_growth_is_refused():
    data = solved(lambda _, x: [x[0], -x[1]], starts(0.1, 1), np.linspace(0, 4, 40))
    with pytest.raises(InvalidInput, match="the data grows: 12 of 12"):
        check_settling(data, {})


def test_recurrence_under_controls_that_change_proves_nothing():
    drive = np.tile(np.sin(TIMES)[None, :, None], (4, 1, 1))
    states = np.tile(np.sin(TIMES - 1)[None, :, None], (4, 1, 1))
    data = check_arrays({"states": states, "times": TIMES, "controls": drive})
    check_settling(data, {})


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.1, 0.3])
def test_decays_are_accepted_however_noisy(noise):
    check_settling(solved(decaying, starts(-2, 2), noise=noise), {})


def test_systems_that_settle_are_accepted():
    check_settling(solved(damped, starts(-2, 2)), {})
    robertson = generate("robertson", 40, 0)
    check_settling(robertson, robertson.conserved)
    check_settling(generate("transient_growth", 20, 0), {})


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        (
            {"linear": ModalSpec(shift=0.1), "nonlinear": ContractingSpec()},
            "surrogate.linear.shift",
            "lets the linear part grow",
        ),
        ({"linear": DenseSpec(), "nonlinear": LipschitzSpec()}, "surrogate", "dense"),
        ({"nonlinear": QuadraticSpec()}, "surrogate.nonlinear.kind", "outweigh"),
        ({"nonlinear": BilinearSpec()}, "surrogate.nonlinear.kind", "outweigh"),
        (
            {"linear": ModalSpec(oscillating=1), "nonlinear": RelaxationSpec()},
            "surrogate.nonlinear.kind",
            "1 oscillating pairs",
        ),
        (
            {"linear": HurwitzSpec(), "nonlinear": RelaxationSpec()},
            "surrogate.nonlinear.kind",
            "'hurwitz'",
        ),
        (
            {"nonlinear": ContractingSpec(), "integrator": "krogstad"},
            "surrogate.integrator",
            "krogstad",
        ),
    ],
)
def test_kinds_that_cannot_be_certified_are_refused(fields, field, reason):
    with pytest.raises(InvalidInput, match=reason) as refused:
        certified_surrogate(SurrogateSpec(**fields), "auto")
    assert refused.value.field.startswith(field)


def test_rates_of_parameters_beside_pairs_are_refused():
    spec = SurrogateSpec(linear=ModalSpec(oscillating=1, depends_on_parameters=True))
    with pytest.raises(InvalidInput, match="whose decay it knows"):
        certified_surrogate(spec, "auto")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"latent": 257}, "surrogate.latent"),
        (
            {"nonlinear": RelaxationSpec(contraction=1 - 1e-9)},
            "surrogate.nonlinear.contraction",
        ),
        (
            {"linear": HurwitzSpec(), "nonlinear": ContractingSpec(margin=0.9999)},
            "surrogate.nonlinear.margin",
        ),
    ],
)
def test_what_no_certificate_could_show_is_refused_before_training(fields, field):
    with pytest.raises(InvalidInput) as refused:
        certified_surrogate(SurrogateSpec(**fields), "auto")
    assert refused.value.field == field


def test_more_states_than_certificates_are_computed_for_are_refused_at_once():
    spec = SurrogateSpec(autoencoder=NoAutoencoderSpec())
    rng = np.random.default_rng(0)
    times = np.linspace(0.0, 1.0, 6)
    states = np.exp(-times)[None, :, None] * rng.uniform(1, 2, (6, 1, 300))
    data = check_arrays({"states": states, "times": times})
    with pytest.raises(InvalidInput, match="latent: found 300"):
        fit(data, spec, SMALL, certified=True)


def test_the_preset_smooth_cannot_be_certified():
    with pytest.raises(InvalidInput, match="quadratic operator"):
        certified_surrogate(None, "smooth")


def test_what_was_left_open_becomes_contracting():
    assert certified_surrogate(None, "auto").nonlinear == RelaxationSpec(
        contraction=0.95
    )
    own = SurrogateSpec(nonlinear=RelaxationSpec(width=7, contraction=0.5))
    assert certified_surrogate(own, "auto") == own
    dense = SurrogateSpec(linear=HurwitzSpec())
    assert certified_surrogate(dense, "auto").nonlinear.kind == "contracting"
    assert certified_surrogate(None, "paper").nonlinear.kind == "contracting"
    pairs = SurrogateSpec(linear=ModalSpec(oscillating=2))
    assert certified_surrogate(pairs, "auto").nonlinear.kind == "contracting"


def test_data_that_cannot_obey_is_refused_before_training():
    data = solved(van_der_pol, starts(-2, 2))
    with pytest.raises(InvalidInput, match="certified: found true"):
        fit(data, training=SMALL, certified=True)


def test_a_certified_surrogate_forgets_its_start_for_random_steps():
    run = fit(generate("robertson", 40, 0), training=SMALL, certified=True)
    found = run.report["certificate"]
    assert found["relaxation_contraction"]["holds"]
    assert found["contraction"]["holds"]
    assert found["error_bound"]["holds"]
    assert found["step_refinement"]["value"] > 0
    assert run.report["certified"] is True
    assert run.report["choices"][0]["what"] == "surrogate.nonlinear"

    surrogate = run.surrogate
    rng = np.random.default_rng(0)
    times = np.append(0.0, np.cumsum(10 ** rng.uniform(-6, 8, 200)))
    plan = TimeGrid(times).plan(times)
    z = jnp.asarray(rng.normal(size=(20, surrogate.signature.latent)) * 10)
    present = jnp.zeros((20, 201), bool).at[:, 0].set(True)
    path = restarted(
        surrogate,
        jnp.zeros((20, 201, z.shape[1])).at[:, 0].set(z),
        present,
        plan,
        jnp.zeros((20, 0)),
        jnp.zeros((20, 1, 0)),
    )
    path = np.concatenate([np.asarray(z)[:, None], path], axis=1)
    apart = np.abs(path[::2] - path[1::2]).max(axis=-1)
    # Networks compute in float32, on latent states of order 10.
    assert (apart[:, 1:] <= apart[:, :-1] + 1e-5).all()
    assert apart[:, -1].max() < 1e-3 * apart[:, 0].min()


def test_a_certified_surrogate_with_pairs_contracts_too():
    spec = SurrogateSpec(linear=ModalSpec(oscillating=2))
    few = SMALL.model_copy(update={"iterations": 5})
    data = solved(decaying, starts(-2, 2), TIMES[::10])
    run = fit(data, spec, few, certified=True)
    found = run.report["certificate"]
    assert run.surrogate.spec.nonlinear.kind == "contracting"
    assert found["step_contraction"]["holds"]
