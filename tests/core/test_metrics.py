"""Metrics against their definitions."""

import dataclasses
import json

import numpy as np
import pytest

from spnode_core.baselines import measuring, normalised
from spnode_core.dataset import check_arrays
from spnode_core.metrics import evaluate, predict, state_scale
from spnode_core.normaliser import fit_scaling
from spnode_core.spec import (
    NoAutoencoderSpec,
    RelaxationSpec,
    ResidualSpec,
    SurrogateSpec,
)
from spnode_core.training.initialise import create_surrogate
from spnode_core.training.presets import resolve

TIMES = np.append(0.0, np.geomspace(1e-2, 10, 6))


@pytest.fixture(scope="module")
def case():
    random = np.random.default_rng(0)
    states = random.uniform(0.5, 1.5, (70, 7, 2)) * [1.0, 1e-5]
    mask = np.ones((70, 7), bool)
    mask[3, 4] = False
    dataset = check_arrays({"states": states, "times": TIMES, "mask": mask})
    spec = SurrogateSpec(
        latent=3,
        nonlinear=RelaxationSpec(width=4, depth=1),
        autoencoder=ResidualSpec(width=4, depth=1),
    )
    return dataset, create_surrogate(dataset, resolve(dataset, spec)[0], seed=0)


def test_metrics_follow_their_definitions(case):
    dataset, surrogate = case
    metrics = evaluate(surrogate, dataset)
    predicted = np.asarray(surrogate.rollout(dataset.states[:, 0], TIMES))
    scale = state_scale(surrogate)
    assert scale == pytest.approx(np.nanmax(dataset.states, axis=(0, 1)))
    error = (predicted - dataset.states)[dataset.mask[:, :, 0]]
    assert metrics["scaled_mse"] == pytest.approx(np.mean((error / scale) ** 2))
    second = metrics["states"]["x2"]
    std = dataset.states[dataset.mask[:, :, 0]][:, 1].std()
    # A start is given: it counts in no other error.
    later = dataset.mask[:, :, 0] & (np.arange(7) > 0)
    error, truth = (predicted - dataset.states)[later], dataset.states[later][:, 1]
    assert second["rmse"] == pytest.approx(np.sqrt(np.mean(error[:, 1] ** 2)))
    assert second["relative_l2"] == pytest.approx(
        np.linalg.norm(error[:, 1]) / np.linalg.norm(truth)
    )
    assert second["max_abs_scaled"] == pytest.approx(
        np.abs(error[:, 1]).max() / scale[1]
    )
    assert second["normalised_rmse"] == pytest.approx(second["rmse"] / std)
    assert metrics["worst_state"]["name"] in ("x1", "x2")
    assert metrics["refinement_error"] > 0
    assert metrics["refined_scaled_mse"] != metrics["scaled_mse"]
    start = (predicted - dataset.states)[:, 0]
    assert metrics["start"]["states"]["x2"] == pytest.approx(
        np.sqrt(np.mean(start[:, 1] ** 2)) / std
    )
    json.dumps(metrics, allow_nan=False)


@pytest.mark.parametrize(
    ("least", "decades"), [(1.0, 1.0), (0.0, 0.0)], ids=["positive", "with zeros"]
)
def test_a_prediction_far_below_all_samples_errs_by_a_decade(least, decades):
    """But not where there are samples of 0, for which it is as good as any other."""
    states = np.geomspace(1.0, 1e4, 7)[None, :, None] * np.ones((3, 1, 1))
    training = check_arrays({"states": states, "times": TIMES})
    scaling = fit_scaling(training.states, ["log"])
    held_out = np.maximum(states, 10.0)
    held_out[:, 3] = least
    dataset = check_arrays({"states": held_out, "times": TIMES})
    found = measuring(scaling, dataset)
    below = np.array([-1.0, 0.0, 1e-20])[:, None, None]
    predicted = np.where(held_out == least, below, held_out)
    error = normalised(found, predicted) - normalised(found, dataset.filled)
    expected = np.zeros(held_out.shape)
    expected[:, 3] = -decades * np.log(10) / float(scaling.scale[0])
    np.testing.assert_allclose(error, expected, atol=1e-12)


def test_a_rollout_begins_with_what_it_was_given_where_nothing_is_encoded():
    states = np.random.default_rng(0).uniform(0.5, 1.5, (70, 7, 2))
    dataset = check_arrays({"states": states, "times": TIMES})
    relaxation = RelaxationSpec(width=4, depth=1)
    spec = SurrogateSpec(
        latent=2, nonlinear=relaxation, autoencoder=NoAutoencoderSpec()
    )
    surrogate = create_surrogate(dataset, resolve(dataset, spec)[0], seed=0)
    start = evaluate(surrogate, dataset)["start"]
    assert start["normalised_rmse"] < 1e-12


def test_a_state_with_no_sample_after_the_start_has_no_error(case):
    dataset, surrogate = case
    part = dataset.take(np.arange(5))
    mask = part.mask.copy()
    mask[:, 1:, 1] = False
    part = dataclasses.replace(part, mask=mask)
    metrics = evaluate(surrogate, part, dataset, seed=0)
    assert set(metrics["states"]["x2"]) == {"scaled_mse"}
    assert metrics["worst_state"]["name"] == "x1"
    json.dumps(metrics, allow_nan=False)


def test_prediction_does_not_depend_on_how_rows_are_grouped(case):
    dataset, surrogate = case
    together = predict(surrogate, dataset, surrogate.grid)
    few = predict(surrogate, dataset.take(np.arange(66, 70)), surrogate.grid)
    # Float32 networks round differently in matrices of different sizes.
    assert np.abs(together[66:] - few).max() < 1e-6
