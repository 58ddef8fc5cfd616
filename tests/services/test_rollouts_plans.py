"""What no row changes is worked out once for all of them: models, plans, propagators."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from services.blobs import Blobs
from services.rollouts import plans
from services.rollouts.engine import Engine
from services.rollouts.tiles import same_bits
from services.rollouts.work import Variant
from services.settings import Settings
from spnode_core import artifact
from spnode_core.ensemble import ensemble_of
from spnode_core.rollout import rollout
from spnode_core.spec import (
    ContractingSpec,
    HurwitzSpec,
    LipschitzSpec,
    MLPSpec,
    ModalSpec,
    RatesSpec,
    RelaxationSpec,
)
from tests.core.models import GRID, RATES, random_states, small_surrogate
from tests.services.test_rollouts_engine import LINEAR

DENSE = HurwitzSpec(rates=RATES)
OFF_GRID = np.geomspace(2e-3, 5e2, 9)


def ensemble(**fields):
    """Two members of different weights."""
    return ensemble_of([small_surrogate(seed=seed, **fields) for seed in (0, 1)])


MODELS = {
    "dense": lambda: small_surrogate(
        normalisation=LINEAR, linear=DENSE, nonlinear=MLPSpec(width=8)
    ),
    "lipschitz": lambda: small_surrogate(
        normalisation=LINEAR, linear=DENSE, nonlinear=LipschitzSpec(width=8)
    ),
    "contracting": lambda: small_surrogate(
        normalisation=LINEAR, linear=DENSE, nonlinear=ContractingSpec(width=8)
    ),
    "matrix-free": lambda: small_surrogate(
        normalisation=LINEAR,
        linear=HurwitzSpec(rates=RatesSpec(minimum=1e-3, maximum=1e-1)),
        nonlinear=ContractingSpec(width=8),
        propagators="matrix_free",
    ),
    "two-stages": lambda: small_surrogate(
        normalisation=LINEAR,
        linear=DENSE,
        nonlinear=ContractingSpec(width=8),
        integrator="etd2rk",
    ),
    "contracted": lambda: small_surrogate(
        normalisation=LINEAR, nonlinear=RelaxationSpec(width=8, contraction=0.5)
    ),
    "depends": lambda: small_surrogate(
        normalisation=LINEAR,
        parameters=1,
        linear=ModalSpec(rates=RATES, depends_on_parameters=True),
    ),
    "ensemble": lambda: ensemble(normalisation=LINEAR, linear=DENSE),
    "ensemble-contracting": lambda: ensemble(
        normalisation=LINEAR, linear=DENSE, nonlinear=ContractingSpec(width=8)
    ),
    "ensemble-depends": lambda: ensemble(
        normalisation=LINEAR,
        parameters=1,
        linear=ModalSpec(rates=RATES, depends_on_parameters=True),
    ),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Settings, and a store that artifacts are put into."""
    jax.config.update("jax_enable_x64", True)
    settings = Settings(data_folder=tmp_path_factory.mktemp("plans") / "data")
    return settings, Blobs(settings.store_url)


def served(store, tmp_path, surrogate):
    """An engine that has a surrogate, and its digest."""
    settings, blobs = store
    digest = artifact.save(surrogate, tmp_path / "model")
    blobs.put(f"artifacts/{digest}", tmp_path / "model")
    return Engine(settings, blobs), digest


@pytest.mark.parametrize("kind", MODELS)
def test_rollouts_and_gradients_are_those_of_the_library(kind, store, tmp_path):
    surrogate = MODELS[kind]()
    engine, digest = served(store, tmp_path, surrogate)
    x0 = random_states(3)
    given = {"x0": x0}
    if surrogate.signature.parameters:
        given["parameters"] = np.linspace(0.6, 1.9, 3)[:, None]
    for times in (GRID[1:], OFF_GRID):
        plan = surrogate.grid.plan(times)
        parameters = None
        if "parameters" in given:
            parameters = jnp.asarray(given["parameters"])
        weights = np.random.default_rng(0).normal(size=(3, len(times), 3))

        def weighted(x0, plan=plan, weights=weights, parameters=parameters):
            x = rollout(surrogate, x0, plan, parameters)
            return (weights * x).sum(), x

        (_, x), gradient = jax.value_and_grad(weighted, has_aux=True)(jnp.asarray(x0))
        asked = given | {"times": times}
        found = engine.run("rollout", digest, asked)
        np.testing.assert_allclose(found["x"], x, rtol=1e-9, atol=1e-13)
        if "spread" in found:
            spread = surrogate.rollout_spread(x0, times, parameters=parameters)
            np.testing.assert_allclose(found["spread"], spread, rtol=1e-7, atol=1e-12)
        found = engine.run("vjp", digest, asked | {"cotangents": weights[:, None]})
        np.testing.assert_allclose(
            found["gradients.x0"][:, 0], gradient, rtol=1e-7, atol=1e-10
        )


@pytest.fixture
def computed(monkeypatch):
    """How many lengths of step propagators have been computed for, each time."""
    found = []
    compute = plans.Steps._propagators

    def counting(self, given, lengths):
        found.append(len(lengths(given.plan)))
        return compute(self, given, lengths)

    monkeypatch.setattr(plans.Steps, "_propagators", counting)
    return found


def test_propagators_are_computed_once_for_all_batches(store, tmp_path, computed):
    engine, digest = served(store, tmp_path, MODELS["dense"]())
    for rows in (1, 3, 40, 100):
        for operation in ("rollout", "latent"):
            given = {"x0": random_states(rows), "times": OFF_GRID}
            engine.run(operation, digest, given)
    while engine.idle():
        pass
    # Of the steps, and to the times that lie between them.
    assert computed == [12, 12]
    # Other times between the same steps.
    engine.run("rollout", digest, {"x0": random_states(1), "times": 1.01 * OFF_GRID})
    assert computed == [12, 12, 12]
    # On the grid no steps remain.
    engine.run("rollout", digest, {"x0": random_states(1), "times": GRID[-1:]})
    assert computed == [12, 12, 12, 13]


def test_large_propagators_are_not_kept(store, tmp_path, computed, monkeypatch):
    surrogate = MODELS["dense"]()
    given = {"x0": random_states(2), "times": GRID[1:]}
    engine, digest = served(store, tmp_path, surrogate)
    kept = engine.run("rollout", digest, given)
    model = engine.resident.get(digest)
    with_them = model.size_bytes
    assert computed == [13]
    # 13 matrices of 5 latent variables and the same of phi_1.
    monkeypatch.setattr(plans, "_KEPT_BYTES", 13 * 2 * 8 * 5 * 5)
    engine, digest = served(store, tmp_path, surrogate)
    again = [engine.run("rollout", digest, given) for _ in range(2)]
    assert all(same_bits(kept, each) for each in again)
    assert computed == [13, 13, 13, 13]
    model = engine.resident.get(digest)
    assert model.size_bytes == with_them - 13 * 2 * 8 * 5 * 5


def test_plans_that_are_kept_are_bounded(store, tmp_path, monkeypatch):
    engine, digest = served(store, tmp_path, MODELS["dense"]())
    steps = engine.resident.get(digest).steps
    for count in range(1, 80):
        steps.stepped(steps.planned(count * OFF_GRID, None))
    assert len(steps._kept) == 64
    few = 3 * max(each.size_bytes for each in steps._kept.values())
    monkeypatch.setattr(plans, "_KEPT_BYTES", few)
    first = steps.planned(GRID[1:], None)
    assert steps.size_bytes <= few
    for count in range(1, 10):
        steps.stepped(steps.planned(1.01 * count * OFF_GRID, None))
        assert steps.size_bytes <= few
    # The first one is gone, and still what it was.
    assert first.plan.on_grid
    assert steps.planned(GRID[1:], None) is not first
    long = steps.planned(np.linspace(1.0, 900.0, 4000), None)
    assert [*steps._kept.values()] == [long]
    assert steps.planned(np.linspace(1.0, 900.0, 4000), None) is long


def test_programs_of_propagators_go_with_the_last_shape(store, tmp_path):
    engine, digest = served(store, tmp_path, MODELS["dense"]())
    model = engine.resident.get(digest)
    for times in (OFF_GRID, GRID[1:], OFF_GRID[:4]):
        engine.run("rollout", digest, {"x0": random_states(2), "times": times})
    before = engine.run("rollout", digest, {"x0": random_states(2), "times": OFF_GRID})
    assert set(model.steps._functions) == {4, 6, 12, 13}
    on_grid = next(each for each in model.tiles if each.plan[0])
    model.forget(on_grid.program)
    assert set(model.steps._functions) == {4, 6, 12}
    for shape in [*model.tiles]:
        model.forget(shape.program)
    assert not model.steps._functions
    again = engine.run("rollout", digest, {"x0": random_states(2), "times": OFF_GRID})
    assert same_bits(before, again)
    # What it computes propagators with is there again, too.
    assert set(model.steps._functions) == {12}


def test_models_are_prepared_once(store, tmp_path):
    engine, digest = served(store, tmp_path, MODELS["contracting"]())
    given = {"x0": random_states(2), "times": OFF_GRID}
    for double in (False, True):
        engine.run("rollout", digest, given, Variant(double=double))
    model = engine.resident.get(digest)
    for form in model.forms.values():
        assert form.whole(form.arrays[0]).dynamics.nonlinear.is_prepared
    assert not model.surrogate.dynamics.nonlinear.is_prepared
