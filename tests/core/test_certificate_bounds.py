"""Each bound of a certificate really bounds: on known matrices, and on random models."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from certified_models import MILD, MODELS, after, shaken
from models import RATES, small_surrogate

from spnode_core.certificates import certify, contracts
from spnode_core.certificates.claims import claim, unknown
from spnode_core.certificates.facts import facts_of
from spnode_core.certificates.members import of_each
from spnode_core.certificates.norms import bases, condition, log_norm, spectral_norm
from spnode_core.spec import (
    FixedSpec,
    HurwitzSpec,
    LipschitzSpec,
    MLPSpec,
    ModalSpec,
    RatesSpec,
    RelaxationSpec,
    UniformStepsSpec,
)

GROWING = ((-1.0, 10.0), (0.0, -2.0))
JORDAN = ((-1.0, 1.0), (0.0, -1.0))


def fixed(matrix, **fields):
    spec = FixedSpec(matrix=matrix)
    model = {"latent": len(matrix), "linear": spec, "nonlinear": MLPSpec(), **fields}
    return small_surrogate(**model)


def peak(matrix):
    """The largest ``||e^{tA}||_2`` over times."""
    times = np.concatenate([[0.0], np.geomspace(1e-3, 20, 400)])
    return max(np.linalg.norm(scipy.linalg.expm(t * matrix), 2) for t in times)


def test_the_second_matrix_of_transient_growth_has_its_known_numbers():
    found = fixed(GROWING).certificate()
    assert found["spectral_abscissa"]["value"] == pytest.approx(-1)
    # lmax of [[-1, 5], [5, -2]].
    assert found["log_norm"]["value"] == pytest.approx(-1.5 + np.sqrt(25.25))
    assert not found["log_norm"]["holds"]
    assert found["transient_bound"]["value"] >= peak(np.array(GROWING)) > 2.5
    assert found["lyapunov"]["decay"] > 0
    # Unit eigenvectors (1, 0) and (10, -1) / sqrt(101), cosine 10 / sqrt(101).
    cosine = 10 / np.sqrt(101)
    expected = np.sqrt((1 + cosine) / (1 - cosine))
    assert found["fixed_point"]["eigenvector_condition"] == pytest.approx(expected)


def test_a_matrix_without_growth_has_no_transient():
    found = fixed(((-1.0, 0.0), (0.0, -2.0))).certificate()
    assert found["log_norm"]["value"] == pytest.approx(-1)
    assert found["transient_bound"]["value"] == 1.0


def test_the_matrix_of_a_jordan_block_is_said_to_be_defective():
    slow = fixed(JORDAN, nonlinear=LipschitzSpec(bound=1e-3))
    found = slow.certificate()["fixed_point"]
    assert found["eigenvector_condition"] is None
    assert "defective" in found["statement"]
    assert found["holds"], "the scaled basis makes room that eigenvectors do not"
    assert found["lipschitz"] * found["condition"] < found["delta"] <= 1


@pytest.mark.parametrize("seed", range(5))
def test_every_basis_bounds_the_flow(seed):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(4, 4)) - 3 * np.eye(4)
    for _, basis in bases(matrix):
        growth = log_norm(np.linalg.solve(basis, matrix @ basis))
        for t in (0.1, 1.0, 3.0):
            flow = np.linalg.norm(scipy.linalg.expm(t * matrix), 2)
            assert flow <= condition(basis) * np.exp(growth * t) * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_transients_and_norms_of_random_stable_matrices_are_bounded(seed):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(4, 4)) * 3
    matrix -= (np.linalg.eigvals(matrix).real.max() + 0.2) * np.eye(4)
    facts = facts_of(fixed(tuple(map(tuple, matrix.tolist()))))
    found = fixed(tuple(map(tuple, matrix.tolist()))).certificate()
    assert found["transient_bound"]["value"] >= peak(matrix) * (1 - 1e-12)
    turn, back = facts.transform, np.linalg.inv(facts.transform)
    for t in (0.01, 0.3, 2.0):
        flow = turn @ scipy.linalg.expm(t * matrix) @ back
        assert np.linalg.norm(flow, 2) <= np.exp(-facts.decay * t) * (1 + 1e-9)


def test_hurwitz_decay_is_that_of_its_own_factors():
    surrogate = shaken(small_surrogate(linear=HurwitzSpec(rates=MILD)))
    q, _, p = map(np.asarray, surrogate.dynamics.linear.factors())
    lower = np.linalg.cholesky(p)
    expected = np.linalg.eigvalsh(lower.T @ q @ lower).min()
    found = surrogate.certificate()["lyapunov"]
    assert found["c0"] == pytest.approx(expected, rel=1e-9)
    np.testing.assert_allclose(found["matrix"], p, rtol=1e-9)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("seed", [0, 1])
def test_slopes_of_random_models_stay_below_their_bounds(name, seed):
    surrogate = shaken(small_surrogate(controls=1, **MODELS[name]), seed)
    facts = facts_of(surrogate)
    slopes, turn = facts.slopes, facts.transform
    dynamics = surrogate.dynamics.prepared()
    matrix = np.asarray(dynamics.linear.matrix())
    rng = np.random.default_rng(seed)
    jacobian = jax.jit(jax.jacfwd(lambda z, u: dynamics.forcing(z, u, jnp.zeros(0))))
    for _ in range(20):
        z = rng.normal(size=5) * 10 ** rng.uniform(-1, 2)
        if slopes.radius is not None:
            z *= slopes.radius * rng.uniform() ** 0.2 / np.linalg.norm(z)
        value = np.asarray(jacobian(jnp.asarray(z), jnp.asarray(rng.uniform(-1, 1, 1))))
        if slopes.entries is not None:
            assert (np.abs(value) <= slopes.entries).all()
        if dynamics.nonlinear.is_relaxation:
            assert slopes.target is not None
            assert np.linalg.norm(value, 2) <= slopes.target
            value = -matrix @ value
        assert np.linalg.norm(value, 2) <= slopes.euclid
        turned = turn @ value @ np.linalg.inv(turn)
        assert np.linalg.norm(turned, 2) <= slopes.lyapunov


@pytest.mark.parametrize("name", ["pairs", "relaxation hurwitz", "mlp", "contracting"])
def test_no_rollout_leaves_its_ball(name):
    surrogate = shaken(small_surrogate(**MODELS[name]), 3)
    found = certify(surrogate)["invariant_ball"]
    assert found["holds"]
    turn = facts_of(surrogate).transform
    states = surrogate.grid.times.size
    rng = np.random.default_rng(0)
    z = rng.normal(size=(16, 1, 5))
    inside = np.linalg.norm(z @ turn.T, axis=-1, keepdims=True)
    z = z / inside * found["radius"]
    later = after(surrogate, z[:, 0], states - 1)
    reached = np.linalg.norm(later @ turn.T, axis=-1)
    assert reached.max() <= found["radius"] * (1 + 1e-9)


def test_each_step_contracts_by_the_discrete_theorem():
    surrogate = shaken(small_surrogate(**MODELS["contracting"]), 1)
    found = certify(surrogate)
    facts = facts_of(surrogate)
    assert found["step_contraction"]["holds"]
    assert found["contraction"]["holds"]
    ratio = facts.slopes.lyapunov / facts.decay
    z = np.random.default_rng(2).normal(size=(12, 5)) * 3
    path = np.concatenate([z[:, None], after(surrogate, z, 13)], axis=1)
    apart = np.linalg.norm((path[::2] - path[1::2]) @ facts.transform.T, axis=-1)
    steps = np.diff(surrogate.grid.times)
    factor = 1 - (1 - ratio) * -np.expm1(-facts.decay * steps)
    assert (apart[:, 1:] <= apart[:, :-1] * factor * (1 + 1e-9)).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_a_bounded_target_contracts_in_every_step(seed):
    spec = RelaxationSpec(contraction=0.95, initial_scale=3.0)
    surrogate = shaken(small_surrogate(nonlinear=spec), seed)
    found = certify(surrogate)["relaxation_contraction"]
    assert found["holds"]
    assert found["target_lipschitz"] == pytest.approx(0.95)
    decay = float(surrogate.dynamics.linear.rates().min())
    z = np.random.default_rng(seed).normal(size=(12, 5)) * 3
    path = np.concatenate([z[:, None], after(surrogate, z, 13)], axis=1)
    apart = np.abs(path[::2] - path[1::2]).max(axis=-1)
    factor = 1 - 0.05 * -np.expm1(-decay * np.diff(surrogate.grid.times))
    assert (apart[:, 1:] <= apart[:, :-1] * factor * (1 + 1e-9)).all()


def test_weights_of_the_components_can_prove_what_equal_ones_cannot():
    surrogate = small_surrogate(nonlinear=RelaxationSpec(contraction=0.5))
    # Components in other units: the model is the same, its rows sum to more than 1.
    first = surrogate.dynamics.nonlinear.prepared(surrogate.dynamics.linear)
    units = jnp.array([100.0, 1.0, 1.0, 1.0, 1.0])
    network = first.network
    scaled = eqx.tree_at(
        lambda n: (n.weights, n.biases),
        network,
        (
            (
                network.weights[0] / units[None],
                network.weights[1],
                network.weights[2] * units[:, None],
            ),
            (*network.biases[:2], network.biases[2] * units),
        ),
    )
    nonlinear = type(first)(scaled)
    moved = eqx.tree_at(lambda s: s.dynamics.nonlinear, surrogate, nonlinear)
    found = certify(moved)["relaxation_contraction"]
    assert found["holds"]
    assert found["target_lipschitz"] == pytest.approx(0.5, rel=1e-4)
    assert max(found["weights"]) == 1.0
    flow = certify(moved)["contraction"]
    assert flow["holds"]
    if flow["norm"] != "P":
        assert flow["norm"] == "largest weighted component"
        assert flow["weights"] == found["weights"]


def test_a_rate_in_weighted_components_is_none_of_the_largest():
    """``g = (10 z2, z1 / 20)`` near 0: apart by (1, 1), the first moves away at 9."""
    surrogate = small_surrogate(
        latent=2,
        linear=ModalSpec(rates=RatesSpec(minimum=1.0, maximum=1.0)),
        nonlinear=RelaxationSpec(width=2, depth=1),
    )
    network = surrogate.dynamics.nonlinear.network
    small = 1e-3
    weights = (
        small * jnp.array([[0.0, 10.0], [0.05, 0.0]]),
        jnp.eye(2) / small,
    )
    exact = eqx.tree_at(
        lambda n: (n.weights, n.biases),
        network,
        (weights, (jnp.zeros(2), jnp.zeros(2))),
    )
    surrogate = eqx.tree_at(
        lambda s: s.dynamics.nonlinear,
        surrogate,
        type(surrogate.dynamics.nonlinear)(exact),
    )
    found = certify(surrogate)["contraction"]
    assert found["holds"]
    assert found["norm"] == "largest weighted component"
    assert found["rate"] == pytest.approx(1 - 0.5**0.5, rel=1e-3)
    weight = np.array(found["weights"])
    matrix = np.array([[-1.0, 10.0], [0.05, -1.0]])
    # The logarithmic norm in those components, and in equal ones.
    scaled = matrix * weight[None] / weight[:, None]
    for bounded, each in ((True, scaled), (False, matrix)):
        off = np.abs(each).sum(axis=1) - np.abs(np.diag(each))
        worst = (np.diag(each) + off).max()
        assert (worst <= -found["rate"] + 1e-6) == bounded


def test_what_is_proved_of_the_flow_is_not_said_of_other_steps():
    found = certify(small_surrogate(integrator="krogstad", **MODELS["contracting"]))
    assert found["contraction"]["holds"]
    for name in ("contraction", "fixed_point"):
        if found[name]["holds"]:
            assert "exact flow" in found[name]["statement"]
            assert any("exact flow" in said for said in found[name]["assumptions"])
    assert not found["step_contraction"]["holds"]


def test_contraction_that_nobody_could_see_is_vacuous():
    slow = RatesSpec(minimum=1e-12, maximum=1e4)
    spec = RelaxationSpec(contraction=0.95)
    for rates, is_vacuous in ((slow, True), (RATES, False)):
        surrogate = small_surrogate(linear=ModalSpec(rates=rates), nonlinear=spec)
        certificate = certify(surrogate)
        assert certificate["relaxation_contraction"]["holds"]
        assert certificate["relaxation_contraction"]["is_vacuous"] == is_vacuous
        assert contracts(certificate) != is_vacuous


def test_steps_of_one_length_contract_in_the_weighted_norm():
    surrogate = shaken(small_surrogate(steps=UniformStepsSpec(step=0.7)), 4)
    surrogate = eqx.tree_at(
        lambda s: s.dynamics.nonlinear.network.weights[-1],
        surrogate,
        replace_fn=lambda w: 0.02 * w,
    )
    found = certify(surrogate)["relaxation_contraction_fixed_step"]
    assert found["holds"]
    rates = np.asarray(surrogate.dynamics.linear.rates())
    weight = np.sqrt(1 / -np.expm1(-0.7 * rates))
    z = np.random.default_rng(0).normal(size=(12, 5))
    path = np.concatenate([z[:, None], after(surrogate, z, 1)], axis=1)
    apart = np.linalg.norm((path[::2] - path[1::2]) * weight, axis=-1)
    factor = 1 - found["gap_shortest_step"]
    assert (apart[:, 1:] <= apart[:, :-1] * factor * (1 + 1e-9)).all()


def test_an_ensemble_is_vacuous_where_a_member_is():
    of_use, vacuous = claim(True, "a is 1."), claim(True, "a is 9.", is_vacuous=True)
    found = of_each([of_use, vacuous])
    assert found["holds"]
    assert found["is_vacuous"]
    assert "of member 1: a is 9." in found["statement"]
    assert not of_each([of_use, of_use])["is_vacuous"]
    assert not of_each([vacuous, unknown("No a is known", "b")])["is_vacuous"]


def test_a_bound_that_says_nothing_is_called_vacuous():
    found = small_surrogate().certificate()["invariant_ball"]
    assert found["holds"]
    assert "10^8.37, which is vacuous" in found["statement"]
    assert found["is_vacuous"]


def test_numbers_of_every_certificate_are_finite_json():
    for fields in MODELS.values():
        found = shaken(
            small_surrogate(parameters=1, controls=1, **fields)
        ).certificate()
        assert json.loads(json.dumps(found, allow_nan=False)) == found
        for name, each in found.items():
            assert each["statement"].endswith("."), name
            assert isinstance(each["holds"], bool), name


def test_spectral_norms_are_rounded_upwards():
    matrix = np.array([[3.0, 0.0], [4.0, 5.0]])
    assert spectral_norm(matrix) == pytest.approx(np.sqrt(45), rel=1e-13)
    assert spectral_norm(matrix) >= np.sqrt(45)
