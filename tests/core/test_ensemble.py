"""Ensembles: members are single trainings, and their mean is one model."""

import dataclasses
import itertools
import json
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import MASS, STATES, random_states, small_surrogate
from test_fit import decay, leaves, quick_compilation

from spnode_core import artifact
from spnode_core.dataset import check_arrays
from spnode_core.ensemble import Ensemble, ensemble_of, members_of
from spnode_core.errors import ArtifactError, InvalidInput
from spnode_core.exports import export
from spnode_core.spec import (
    NoAutoencoderSpec,
    OperatorInferenceSpec,
    PolynomialSpec,
    RelaxationSpec,
    SplitSpec,
    SurrogateSpec,
    TrainingSpec,
)
from spnode_core.training import stages
from spnode_core.training.contest import Entry
from spnode_core.training.execution import Execution
from spnode_core.training.fit import Stopped, fit
from spnode_core.training.members import member_seeds
from spnode_core.training.parts import Parts
from spnode_core.training.presets import resolve
from spnode_core.training.progress import Reporter

__all__ = ["quick_compilation"]

TIMES = [0.0, 0.5, 3.0, 1000.0]
SMALL = SurrogateSpec(
    nonlinear=RelaxationSpec(width=3, depth=1), autoencoder=NoAutoencoderSpec()
)
BRIEF = TrainingSpec(iterations=12, batch=6, polish_iterations=4, loss="uniform")


@pytest.fixture(scope="module")
def untrained():
    linear = dict.fromkeys(STATES, "linear")
    fields = {"conserved": MASS, "normalisation": linear}
    return ensemble_of([small_surrogate(seed=i, **fields) for i in range(3)])


@pytest.fixture(scope="module")
def trained():
    return fit(decay(), SMALL, BRIEF, members=2, seed=5)


def test_mean_and_spread_are_those_of_the_members_states(untrained):
    x0 = random_states(4)
    each = np.stack([one.rollout(x0, TIMES) for one in members_of(untrained)])
    mean, spread = untrained.rollout(x0, TIMES), untrained.rollout_spread(x0, TIMES)
    np.testing.assert_allclose(mean, each.mean(axis=0), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(spread, each.std(axis=0, ddof=1), rtol=1e-9, atol=1e-14)
    assert np.asarray(spread).max() > 1e-3
    # One row alone has the shape of one row.
    assert untrained.rollout_spread(x0[0], TIMES).shape == (4, 3)


def test_mean_keeps_conserved_sums(untrained):
    x0 = random_states(4)
    sums = np.asarray(untrained.rollout(x0, TIMES)).sum(axis=2)
    np.testing.assert_allclose(sums, np.repeat(x0.sum(axis=1)[:, None], 4, 1), 1e-12)


def test_derivative_of_the_mean_is_the_mean_of_the_derivatives(untrained):
    x0 = random_states(1)[0]
    end = lambda one: jax.grad(lambda x: one.rollout(x, [3.0])[0, 1])(x0)  # noqa: E731
    each = np.stack([end(one) for one in members_of(untrained)])
    np.testing.assert_allclose(end(untrained), each.mean(axis=0), rtol=1e-9, atol=1e-12)


def test_artifact_round_trip_and_forged_numbers_of_members(untrained, tmp_path):
    path = tmp_path / "three.spnode"
    digest = artifact.save(untrained, path)
    found = artifact.load(path, digest=digest)
    assert isinstance(found, Ensemble)
    assert artifact.read_spec(path).signature.members == 3
    same = found.rollout(random_states(2), TIMES)
    assert (same == untrained.rollout(random_states(2), TIMES)).all()
    assert artifact.save(found, tmp_path / "again.spnode") == digest
    fewer = untrained.signature.model_copy(update={"members": 2})
    forged = dataclasses.replace(untrained, signature=fewer)
    artifact.save(forged, path)
    with pytest.raises(ArtifactError, match="but the spec needs"):
        artifact.load(path)


def test_file_of_one_member_says_nothing_of_members(untrained, tmp_path):
    path = tmp_path / "one.spnode"
    digest = artifact.save(untrained.member(1), path)
    with zipfile.ZipFile(path) as archive:
        assert "members" not in json.loads(archive.read("spec.json"))["signature"]
    assert artifact.save(artifact.load(path), path) == digest


def test_what_is_a_thing_of_one_member_is_refused(untrained):
    x0 = random_states(1)[0]
    for refused in (
        lambda: untrained.encode(x0, np.zeros(0)),
        lambda: untrained.decode(np.zeros(5), np.ones(1), np.zeros(0)),
    ):
        with pytest.raises(
            InvalidInput, match="an ensemble of 3 members; expected one"
        ):
            refused()
    with pytest.raises(InvalidInput, match=r"member: found 3; expected 0 to 2"):
        untrained.member(3)


def test_certificate_holds_where_it_holds_for_every_member(untrained):
    found = untrained.certificate()
    each = [one.certificate() for one in members_of(untrained)]
    for name, claim in found.items():
        assert claim["holds"] == all(one[name]["holds"] for one in each)
        assert len(claim["members"]) == 3
        assert any("each member by itself" in said for said in claim["assumptions"])
    assert found["invariant_box"]["holds"]
    assert json.dumps(found, allow_nan=False)


def test_export_is_the_mean(untrained, tmp_path):
    found = export(untrained, tmp_path / "out", TIMES[1:], rows=[])
    assert found["probe"]["scaled_difference"] < 1e-12


def test_member_of_a_vmapped_training_is_the_training_with_its_seed(trained):
    seeds = trained.report["ensemble"]["seeds"]
    assert seeds == list(member_seeds(5, 2))
    assert seeds[0] == 5
    parts = Parts(*decay().split(SplitSpec(), 5))
    spec = trained.surrogate.spec
    training = TrainingSpec(**trained.report["training"])
    for seed, member in zip(seeds, members_of(trained.surrogate), strict=True):
        run = Execution(parts, spec, training, seed, Reporter(), {}, None, 10.0)
        alone, record = run.run()
        pairs = zip(
            jax.tree.leaves((member.dynamics, member.autoencoder)),
            jax.tree.leaves((alone.dynamics, alone.autoencoder)),
            strict=True,
        )
        for left, right in pairs:
            np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)
        assert len(record.best_losses) == 1


def test_report_has_the_mean_beside_its_members(trained):
    report = json.loads(json.dumps(trained.report, allow_nan=False))
    found = report["ensemble"]
    assert report["members"] == found["members"] == 2
    assert len(found["members_normalised_rmse"]) == 2
    usual = report["metrics"]["test"]["normalised_rmse"]
    assert found["normalised_rmse"] == pytest.approx(usual)
    assert usual < max(found["members_normalised_rmse"])
    assert 0 <= found["spread"]["within_two"] <= 1
    assert "no calibrated interval" in found["spread"]["note"]
    assert trained.surrogate.signature.intervals is not None
    x, none = jnp.array([0.5, 0.5]), jnp.zeros(0)
    apart = [one.distance(x, none) for one in members_of(trained.surrogate)]
    # In float32, where they are worked out.
    found = trained.surrogate.distance(x, none)
    np.testing.assert_allclose(found, np.mean(apart), rtol=1e-5)
    assert report["certificate"]["error_bound"]["members"]


def test_interrupted_ensemble_goes_on_to_the_same_bits(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "CHUNK_S", 0.0)
    path = tmp_path / "run.ckpt"
    asked = itertools.count()

    def stop():
        return "maintenance" if next(asked) == 7 else None

    given = {"members": 2, "seed": 5, "checkpoint": path}
    with pytest.raises(Stopped):
        fit(decay(), SMALL, BRIEF, should_stop=stop, **given)
    with pytest.raises(InvalidInput, match="a run with another members"):
        fit(decay(), SMALL, BRIEF, **given | {"members": 3})
    again = fit(decay(), SMALL, BRIEF, **given)
    for left, right in zip(leaves(trained), leaves(again), strict=True):
        assert left.tobytes() == right.tobytes()


def test_members_of_least_squares_fit_resamples_of_the_trajectories():
    data = decay()
    noise = 1e-3 * np.random.default_rng(1).normal(size=data.states.shape)
    data = check_arrays({"states": data.states + noise, "times": data.times[0]})
    spec = SurrogateSpec(
        nonlinear=PolynomialSpec(degree=1),
        autoencoder=NoAutoencoderSpec(),
        integrator="rodas4",
        normalisation={"x1": "max", "x2": "max"},
    )
    training = TrainingSpec(initial=OperatorInferenceSpec(), iterations=0, refine=1)
    resolved = resolve(data, spec, training)[:2]
    parts = Parts(*data.split(SplitSpec(), 0))
    run = Execution(parts, *resolved, 0, Reporter(), {}, None, 10.0)
    # As after a contest, in which the first member alone took part.
    tried = Entry("the first", run, *run.run(), [], 0.0)
    found = tried.completed(member_seeds(0, 3))
    first, *others = members_of(found.surrogate)
    same = (first.dynamics, tried.surrogate.dynamics)
    assert all(map(np.array_equal, *map(jax.tree.leaves, same)))
    values = [np.asarray(one.dynamics.nonlinear.coefficients) for one in others]
    assert not np.array_equal(*values)
    for each in values:
        # The resamples tell rates of 1 and 4 apart from each other, not from noise.
        assert 1e-6 < np.abs(each - first.dynamics.nonlinear.coefficients).max() < 0.1
    assert found.execution.seeds == member_seeds(0, 3)
    assert len(found.record.best_losses) == 3
    only = dataclasses.replace(run, parts=Parts(*[data.take(np.arange(1))] * 3))
    kept = dataclasses.replace(tried, execution=only).completed(member_seeds(0, 2))
    assert "resamples of the training trajectories" in kept.record.outcome
    assert kept.surrogate is tried.surrogate


@pytest.mark.parametrize("members", [0, 17, 2.0, True])
def test_other_numbers_of_members_are_refused(members):
    with pytest.raises(
        InvalidInput, match=r"members: found .*; expected a number from"
    ):
        fit(decay(), SMALL, BRIEF, members=members)


def test_ensembles_and_warm_starts_exclude_each_other(trained):
    one = trained.surrogate.member(0)
    with pytest.raises(InvalidInput, match="members: found 2 with warm_start"):
        fit(decay(), members=2, warm_start=one)
    with pytest.raises(InvalidInput, match="warm_start: found an ensemble of 2"):
        fit(decay(), warm_start=trained.surrogate)
