"""Versions side by side: same trajectories, same units, row by row."""

import dataclasses
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spnode_core.comparison import compare
from spnode_core.dataset import check_arrays
from spnode_core.errors import InvalidInput
from spnode_core.spec import NoAutoencoderSpec
from tests.core.models import GRID, STATES, random_states, small_surrogate

LINEAR = dict.fromkeys(STATES, "linear")


@pytest.fixture(scope="module")
def truth():
    # Without an autoencoder a rollout goes through its own states again, exactly.
    return small_surrogate(
        latent=3, autoencoder=NoAutoencoderSpec(), normalisation=LINEAR
    )


@pytest.fixture(scope="module")
def dataset(truth):
    """Trajectories of a surrogate itself, so that it is right on all of them."""
    states = truth.rollout(random_states(12), GRID)
    return check_arrays({"states": states, "times": GRID, "names": np.array(STATES)})


def disturbed(surrogate, size, seed=0):
    """A surrogate whose weights are off by some part of their size."""
    keys = iter(jax.random.split(jax.random.key(seed), 100))

    def move(leaf):
        noise = jax.random.normal(next(keys), leaf.shape, leaf.dtype)
        return leaf + size * jnp.abs(leaf).mean() * noise

    network = surrogate.dynamics.nonlinear
    moved = jax.tree.map(move, eqx.filter(network, eqx.is_inexact_array))
    return eqx.tree_at(
        lambda s: s.dynamics.nonlinear, surrogate, eqx.combine(moved, network)
    )


def test_what_made_the_data_wins_on_every_trajectory(truth, dataset):
    pair = {"m/1": disturbed(truth, 0.3), "m/2": truth}
    found = compare(pair, dataset)
    json.dumps(found, allow_nan=False)
    paired = found["paired"]["m/2"]
    assert (paired["better"], paired["worse"], paired["equal"]) == (12, 0, 0)
    assert not paired["is_worse"]
    # Twelve heads of twelve, both sides counted.
    assert paired["p_value"] == pytest.approx(2 * 0.5**12)
    assert paired["median_ratio"] < 1e-6
    assert paired["verdict"].startswith("m/2 against m/1: better on 12 of 12")
    new, old = found["surrogates"]["m/2"], found["surrogates"]["m/1"]
    assert new["normalised_rmse"] < 1e-10 < old["normalised_rmse"]
    # From later samples its steps lie elsewhere, so there it is not exact.
    assert 1e-10 < new["error"] < old["error"]
    assert set(old["states"]) == set(old["mid_trajectory"]["states"]) == set(STATES)
    # Without training data there is one trivial model.
    assert set(found["baselines"]) == {"constant"}


def test_the_other_way_round_it_is_worse(truth, dataset):
    found = compare({"m/1": truth, "m/2": disturbed(truth, 0.3)}, dataset)
    paired = found["paired"]["m/2"]
    assert (paired["better"], paired["worse"], paired["is_worse"]) == (0, 12, True)
    assert "worse: better on 0 of 12" in paired["verdict"]


def test_a_surrogate_is_no_worse_than_itself(truth, dataset):
    off = disturbed(truth, 0.3)
    paired = compare({"a": off, "b": off}, dataset)["paired"]["b"]
    assert (paired["equal"], paired["median_ratio"]) == (12, 1.0)
    assert (paired["p_value"], paired["is_worse"]) == (1.0, False)


def test_a_rollout_that_is_not_finite_loses_and_is_null(truth, dataset):
    broken = eqx.tree_at(
        lambda s: s.normaliser.states.offset,
        truth,
        jnp.full(3, jnp.inf),
    )
    found = compare({"m/1": truth, "m/2": broken}, dataset)
    json.dumps(found, allow_nan=False)
    assert found["surrogates"]["m/2"]["error"] is None
    paired = found["paired"]["m/2"]
    assert (paired["worse"], paired["is_worse"]) == (12, True)
    assert compare({"a": broken, "b": broken}, dataset)["paired"]["b"]["equal"] == 12


def test_training_data_bring_the_other_trivial_models(truth, dataset):
    train, held = dataset.take(np.arange(8)), dataset.take(np.arange(8, 12))
    pair = {"m/1": disturbed(truth, 0.3), "m/2": truth}
    found = compare(pair, held, train)
    assert set(found["baselines"]) == {"constant", "linear_dmd", "nearest_trajectory"}


def test_states_are_measured_in_what_all_learned_them_in(truth, dataset):
    kept = truth.normaliser.states
    log = dataclasses.replace(kept, kinds=("log", "max", "linear"))
    other = dataclasses.replace(
        truth, normaliser=dataclasses.replace(truth.normaliser, states=log)
    )
    both = compare({"x": other, "y": other}, dataset)["scalings"]
    assert both == {"a": "log", "b": "linear", "c": "linear"}
    # Where they differ the data decide, which span no decades here.
    assert compare({"x": other, "y": truth}, dataset)["scalings"]["a"] == "linear"


def test_one_surrogate_or_other_data_are_refused(truth, dataset):
    with pytest.raises(InvalidInput, match="surrogates"):
        compare({"m/1": truth}, dataset)
    renamed = check_arrays({"states": dataset.states, "times": GRID})
    with pytest.raises(InvalidInput, match="a, b, c, which m/1 takes"):
        compare({"m/1": truth, "m/2": truth}, renamed)
