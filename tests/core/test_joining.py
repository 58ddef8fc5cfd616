"""Surrogates that were trained apart are one ensemble, like one trained at once."""

import dataclasses
import json

import equinox as eqx
import jax
import numpy as np
import pytest
from models import small_surrogate
from test_fit import decay, quick_compilation

from spnode_core.ensemble import Ensemble, members_of
from spnode_core.errors import InvalidInput
from spnode_core.metrics import evaluate
from spnode_core.spec import (
    NoAutoencoderSpec,
    RelaxationSpec,
    SplitSpec,
    SurrogateSpec,
    TrainingSpec,
)
from spnode_core.training.fit import fit
from spnode_core.training.joining import join, joinable

__all__ = ["quick_compilation"]

SMALL = SurrogateSpec(
    nonlinear=RelaxationSpec(width=3, depth=1), autoencoder=NoAutoencoderSpec()
)
BRIEF = TrainingSpec(iterations=12, batch=6, polish="none", loss="uniform")
SPLIT = SplitSpec(validation=0.25, test=0.25, seed=7)


@pytest.fixture(scope="module")
def apart():
    return [
        fit(decay(), SMALL, BRIEF, split=SPLIT, seed=seed).surrogate for seed in (1, 2)
    ]


@pytest.fixture(scope="module")
def joined(apart):
    return join(apart, decay(), split=SPLIT, seeds=(1, 2))


def test_the_mean_is_that_of_the_members(apart, joined):
    x0, times = [[0.5, 0.5], [0.3, 0.9]], [0.1, 1.0, 2.0]
    assert isinstance(joined.surrogate, Ensemble)
    each = np.stack([one.rollout(x0, times) for one in apart])
    x = joined.surrogate.rollout(x0, times)
    np.testing.assert_allclose(x, each.mean(axis=0), rtol=1e-12)
    assert np.abs(each[0] - each[1]).max() > 1e-6


def test_intervals_and_errors_are_its_own(apart, joined):
    train, validation, test = decay().split(SPLIT, 0)
    ensemble = joined.surrogate
    of_members = [one.signature.intervals for one in apart]
    assert ensemble.signature.intervals is not None
    assert ensemble.signature.intervals not in of_members
    report = joined.report
    expected = evaluate(ensemble, test, train, seed=0)["normalised_rmse"]
    assert report["metrics"]["test"]["normalised_rmse"] == pytest.approx(expected)
    assert report["ensemble"]["seeds"] == [1, 2]
    assert len(report["ensemble"]["members_normalised_rmse"]) == 2
    assert report["split_sizes"]["validation"] == validation.trajectories
    abscissa = report["certificate"]["spectral_abscissa"]
    assert len(abscissa["members"]) == 2
    json.dumps(report)


def test_those_of_one_description_are_joined_and_none_twice(apart, joined):
    one, two = apart
    other = small_surrogate()
    assert joinable([one, other, joined.surrogate, one, two]) == [0, 4]
    assert joinable([one, two], most=1) == [0]
    # Of another split: its scalings differ.
    elsewhere = fit(decay(), SMALL, BRIEF, seed=3).surrogate
    assert joinable([one, elsewhere]) == [0]


def test_what_two_machines_round_differently_agrees(apart):
    """Scalings and numbers of the description in the last bits, and least squares'."""
    one, two = apart
    scale = one.normaliser.states.scale
    elsewhere = eqx.tree_at(
        lambda each: each.normaliser.states.scale, two, scale * (1 + 1e-15)
    )
    step = two.spec.steps.step * (1 + 1e-14)
    steps = two.spec.steps.model_copy(update={"step": step})
    spec = two.spec.model_copy(update={"steps": steps})
    elsewhere = dataclasses.replace(elsewhere, spec=spec)
    assert joinable([one, elsewhere]) == [0, 1]
    joined = join([one, elsewhere], decay(), split=SPLIT).surrogate
    _, second = members_of(joined)
    x0, times = [0.5, 0.5], [1.0]
    np.testing.assert_allclose(second.rollout(x0, times), two.rollout(x0, times), 1e-9)
    twin = jax.tree.map(
        lambda leaf: leaf * (1 + 1e-13) if eqx.is_inexact_array(leaf) else leaf, one
    )
    assert joinable([one, twin]) == [0]


def test_what_is_no_surrogate_or_of_other_data_is_said(apart):
    one, two = apart
    other = decay(names=np.array(["p", "q"]))
    for given, data, options, field in (
        ([one, "two"], decay(), {}, r"members\[1\]"),
        ([one, two], other, {}, r"dataset\.states"),
        ([one, two], decay(), {"seeds": (1,)}, "seeds"),
    ):
        with pytest.raises(InvalidInput, match=field):
            join(given, data, split=SPLIT, **options)


@pytest.mark.parametrize(
    ("members", "field"),
    [
        (lambda one, two: [one], "members"),
        (lambda one, two: [one, two] * 9, "members"),
        (lambda one, two: [one, two, one], r"members\[2\]"),
        (lambda one, two: [one, small_surrogate()], r"members\[1\]"),
    ],
)
def test_what_is_no_ensemble_is_refused(apart, members, field):
    with pytest.raises(InvalidInput, match=field):
        join(members(*apart), decay(), split=SPLIT)


def test_members_come_out_as_they_went_in(apart, joined):
    for one, member in zip(apart, members_of(joined.surrogate), strict=True):
        alone = dataclasses.replace(
            one, signature=one.signature.model_copy(update={"intervals": None})
        )
        x0, times = [0.5, 0.5], [1.0]
        np.testing.assert_array_equal(
            member.rollout(x0, times), alone.rollout(x0, times)
        )
