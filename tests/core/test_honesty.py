"""What a small trained model says of itself, against trajectories nobody has seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from services.rollouts.domain import domain_fields
from services.rollouts.served import Served
from spnode_core import systems
from spnode_core.dataset import check_arrays
from spnode_core.metrics import evaluate, with_intervals
from spnode_core.spec import (
    NoAutoencoderSpec,
    RelaxationSpec,
    ResidualSpec,
    SplitSpec,
    SurrogateSpec,
    TrainingSpec,
)
from spnode_core.training import assessment
from spnode_core.training.execution import Execution
from spnode_core.training.initialise import create_surrogate
from spnode_core.training.neighbours import with_neighbours
from spnode_core.training.parts import Parts
from spnode_core.training.presets import resolve
from spnode_core.training.progress import Reporter

SMALL = SurrogateSpec(
    latent=4,
    nonlinear=RelaxationSpec(width=8, depth=1),
    autoencoder=ResidualSpec(width=8, depth=1),
)
BRIEF = TrainingSpec(iterations=60, batch=32, polish="none", refine=1)


@pytest.fixture(scope="module")
def parts():
    dataset = systems.generate("robertson", 200, seed=0, points=20)
    return Parts(*dataset.split(SplitSpec(validation=0.4, test=0.1), seed=0))


@pytest.fixture(scope="module")
def trained(parts):
    """Trained as ``fit`` does, without a report, which takes as long again."""
    spec, training, _ = resolve(parts.train, SMALL, BRIEF)
    reporter = Reporter(None, None, None)
    return Execution(parts, spec, training, 0, reporter, {}, None, 10.0).run()[0]


@pytest.fixture(scope="module")
def unseen():
    return systems.generate("robertson", 200, seed=1, points=20)


def test_intervals_hold_nine_tenths_of_the_truth(parts, trained, unseen):
    surrogate = with_intervals(trained, parts.validation)
    measured = evaluate(surrogate, unseen)["intervals"]["measured"]
    by_coverage = {row["coverage"]: row["measured"] for row in measured}
    # From 80 trajectories the coverage has a standard deviation of 3 % in one bin, and
    # less over all of them.
    assert by_coverage[0.9] == pytest.approx(0.9, abs=0.04)
    assert by_coverage[0.5] == pytest.approx(0.5, abs=0.1)


@pytest.fixture(scope="module")
def flagged(parts, trained):
    """Which starts a rollout's answer says to lie outside the training domain."""
    surrogate = with_neighbours(trained, parts.train, seed=0)
    served = Served("m", 1, "0" * 64, surrogate.signature, surrogate.spec)
    distance = jax.jit(jax.vmap(surrogate.distance))

    def flags(x0, *, box=True):
        far = np.asarray(distance(x0, np.zeros((len(x0), 0))))
        if not box:
            return far > 1
        found = domain_fields(served, {"x0": x0}, 1.0, distance=far, listed=False)
        return ~np.array(found["domain"]["inside"])

    return flags


def test_starts_that_were_held_out_lie_inside(parts, flagged, unseen):
    for starts in (unseen.states[:, 0], parts.validation.states[:, 0]):
        assert flagged(starts).mean() <= 0.05
    # So do later samples, from which rollouts may start as well.
    assert flagged(unseen.states.reshape(-1, 3)).mean() <= 0.05


def test_starts_from_outside_the_box_are_flagged(trained, flagged):
    domain = trained.signature.domain
    lower, upper = np.array(domain.lower), np.array(domain.upper)
    draws = np.random.default_rng(0)
    # Around the box, by half of its sides and by a tenth.
    for beyond in (0.5, 0.1):
        by = beyond * (upper - lower)
        x0 = draws.uniform(lower - by, upper + by, (4096, 3))
        x0 = x0[((x0 < lower) | (x0 > upper)).any(axis=1)]
        assert flagged(x0).mean() >= 0.95
        # And where the box is not asked, since the encoder sees them nowhere near.
        assert flagged(x0, box=False).mean() >= 0.8


def test_runs_that_begin_alike_leave_the_distance_as_it_is(parts) -> None:
    draws = np.random.default_rng(0)
    rate = draws.uniform(0.5, 2.0, (40, 1))
    times = np.linspace(0.0, 3.0, 15)
    decayed = np.exp(-rate * times)
    states = np.stack([decayed, 1.0 - decayed], axis=2)
    arrays = {"states": states, "times": times, "parameters": rate}
    dataset = check_arrays(arrays)
    plain = SurrogateSpec(autoencoder=NoAutoencoderSpec(), latent=2)
    spec = resolve(dataset, plain, BRIEF)[0]
    surrogate = with_neighbours(create_surrogate(dataset, spec, 0), dataset, seed=0)

    def distances(x):
        ask = jax.vmap(surrogate.distance, in_axes=(0, None))
        return np.asarray(ask(jnp.asarray(x), jnp.asarray(rate[0])))

    part = np.exp(-draws.uniform(0.5, 2.0, (40, 1)) * times).reshape(-1, 1)
    on = np.concatenate([part, 1.0 - part], axis=1)
    assert (distances(on) > 1.0).mean() < 0.1
    # A quarter of what the states vary by, off all trajectories.
    beside = on + 0.25 * states.std(axis=(0, 1))
    assert (distances(beside) > 1.0).all()


def test_states_in_the_box_that_no_trajectory_comes_near_are_flagged(trained, flagged):
    domain = trained.signature.domain
    x0 = np.random.default_rng(0).uniform(domain.lower, domain.upper, (4096, 3))
    # The sum is that of the data: nothing but the distance tells.
    x0[:, 2] = 1.0 - x0[:, 0] - x0[:, 1]
    assert flagged(x0, box=False).mean() >= 0.3


def test_where_all_test_rollouts_are_lost_the_validation_part_judges(
    parts, trained, monkeypatch
):
    def lost(surrogate, dataset):
        return np.zeros(dataset.trajectories, bool)

    monkeypatch.setattr(assessment, "finite_rows", lost)
    found = assessment.assess(trained, parts, 0, (0,), certified=False)
    assert found["metrics"]["test"] is None
    assert any("of the validation part" in each for each in found["warnings"])
    assert "mid_trajectory" in found["metrics"]["validation"]
