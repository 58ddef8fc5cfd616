"""Theorem 4 along trajectories: the bound really bounds, of every kind of model."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from certified_models import MILD, MODELS, after, shaken
from models import random_states, small_surrogate

from spnode_core.certificates.along import Along, error_bound
from spnode_core.certificates.facts import facts_of
from spnode_core.certificates.lipschitz import _polynomial
from spnode_core.certificates.norms import condition
from spnode_core.rollout import rollout
from spnode_core.spec import BilinearSpec, HurwitzSpec, LipschitzSpec, ModalSpec


@pytest.mark.parametrize(
    "name", ["relaxation", "pairs", "mlp", "contracting", "bilinear", "quadratic"]
)
def test_theorem_4_bounds_the_error_along_trajectories(name):
    surrogate = small_surrogate(**MODELS[name])
    x0 = jnp.asarray(random_states(6))
    plan = surrogate.grid.plan(surrogate.grid.times)
    states = np.array(rollout(surrogate, x0, plan))
    states[:, 1:] *= 1 + 0.05 * np.random.default_rng(0).normal(
        size=states[:, 1:].shape
    )
    complete = np.ones(states.shape[:2], bool)
    complete[2, 4:6] = False
    part = Along(states, complete, np.zeros((6, 0)), np.zeros((6, 1, 0)), plan)
    found = error_bound(surrogate, {"test": part})
    assert found["holds"]
    numbers = found["parts"]["test"]
    assert numbers["error"] > 0
    assert found["is_vacuous"] == (
        numbers["sharp_log10"] > np.log10(numbers["latent_size"])
    )
    assert np.log10(numbers["error"]) <= numbers["sharp_log10"] + 1e-9
    assert numbers["sharp_log10"] <= numbers["original_log10"] + 0.5


@pytest.mark.parametrize("seed", range(4))
def test_theorem_4_holds_in_the_norm_of_p(seed):
    model = {"linear": HurwitzSpec(rates=MILD)}
    model["nonlinear"] = BilinearSpec(initial_scale=1)
    surrogate = shaken(small_surrogate(**model), seed, 0.5)
    facts = facts_of(surrogate)
    assert condition(facts.transform) > 2
    x0 = jnp.asarray(random_states(6))
    plan = surrogate.grid.plan(surrogate.grid.times[:8])
    states = np.array(rollout(surrogate, x0, plan))
    # The first sample after the start is off; the model's own flow goes on from it.
    grown = np.array(rollout(surrogate, jnp.asarray(states[:, 1] * 1.01), plan))
    states[:, 1:] = grown[:, :-1]
    complete = np.ones(states.shape[:2], bool)
    part = Along(states, complete, np.zeros((6, 0)), np.zeros((6, 1, 0)), plan)
    numbers = error_bound(surrogate, {"test": part})["parts"]["test"]
    assert numbers["norm"] == "P"
    assert np.log10(numbers["error"]) <= numbers["sharp_log10"] + 1e-9
    wrong = _polynomial(surrogate, np.eye(5), facts.slopes.radius)
    assert wrong.lyapunov < facts.slopes.lyapunov


def test_trajectories_with_inputs_outside_the_training_box_are_left_out():
    surrogate = small_surrogate(parameters=1, **MODELS["bilinear"])
    plan = surrogate.grid.plan(surrogate.grid.times)
    x0, inside = jnp.asarray(random_states(4)), np.full((4, 1), 1.0)
    states = np.asarray(rollout(surrogate, x0, plan, jnp.asarray(inside)))
    complete = np.ones(states.shape[:2], bool)
    beyond = np.array([[0.5], [2.0], [2.1], [0.4]])
    nothing = np.zeros((4, 1, 0))
    part = Along(states, complete, beyond, nothing, plan)
    found = error_bound(surrogate, {"test": part})
    assert found["parts"]["test"]["trajectories"] == 2
    assert found["parts"]["test"]["left_out"] == 2
    assert "inside the training box" in " ".join(found["assumptions"])
    none = error_bound(surrogate, {"test": part.rows(beyond[:, 0] > 2)})
    assert not none["holds"]
    assert "leave the training box" in none["statement"]


@pytest.mark.parametrize("name", ["mlp", "bilinear"])
def test_matrix_free_steps_arrive_where_a_rollout_does(name):
    linear = HurwitzSpec(rates=MILD)
    surrogate = shaken(
        small_surrogate(**MODELS[name] | {"linear": linear}, propagators="matrix_free")
    )
    x0 = jnp.asarray(random_states(3))
    times = surrogate.grid.times[1:7]
    plan = surrogate.grid.plan(times)
    expected = rollout(surrogate, x0, plan, latent=True)
    start = jax.vmap(surrogate.encode)(x0, jnp.zeros((3, 0)))
    np.testing.assert_allclose(after(surrogate, start, 6), expected, rtol=1e-10)


@pytest.mark.parametrize(("drift", "is_vacuous"), [(0.1, True), (0.001, False)])
def test_theorem_4_is_exact_for_a_linear_model(drift, is_vacuous):
    spec = LipschitzSpec(bound=1e-12)
    surrogate = small_surrogate(linear=ModalSpec(rates=MILD), nonlinear=spec)
    plan = surrogate.grid.plan(surrogate.grid.times)
    states = np.asarray(rollout(surrogate, jnp.asarray(random_states(1)), plan))
    states = states * (1 + drift * np.arange(states.shape[1])[None, :, None])
    part = Along(
        states,
        np.ones(states.shape[:2], bool),
        np.zeros((1, 0)),
        np.zeros((1, 1, 0)),
        plan,
    )
    found = error_bound(surrogate, {"test": part})
    numbers = found["parts"]["test"]
    # Where the original form alone says nothing, the claim is of use.
    assert re.search(r"gives 10\^\S+, which is vacuous", found["statement"])
    assert found["is_vacuous"] == is_vacuous
    assert 10 ** numbers["sharp_log10"] <= 20 * numbers["error"]
