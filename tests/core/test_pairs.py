"""Training on pairs of samples: which are drawn, and what they are judged by."""

import jax
import numpy as np
import pytest
from outbreaks import NONE, SPEC, TIMES, TRAINING, outbreaks

from spnode_core import SurrogateSpec, TrainingSpec, check_arrays, fit
from spnode_core.errors import InvalidInput
from spnode_core.rollout import rollout
from spnode_core.spec import (
    HurwitzSpec,
    ModalSpec,
    RelaxationSpec,
    ResidualSpec,
    SplitSpec,
)
from spnode_core.surrogate import Surrogate
from spnode_core.training.contest import Entry
from spnode_core.training.execution import Execution
from spnode_core.training.initialise import create_surrogate
from spnode_core.training.pairs import PairObjective
from spnode_core.training.parts import Parts
from spnode_core.training.presets import resolve
from spnode_core.training.progress import Reporter


def test_only_trajectories_that_rest_are_held_beyond_their_ends() -> None:
    arrays = outbreaks(4)
    arrays["states"][1] += 0.01 * TIMES[:, None]
    arrays["states"][2, :, 0] += 2e-6 * TIMES
    # Grows unseen by decades, and is cut off before it counts.
    arrays["states"][3, :, 1] = 1e-9 * np.exp(0.5 * TIMES)
    arrays["states"][3, :, 0] = 0.8
    objective, _ = _objective(arrays, SPEC)
    reach = np.asarray(objective.data.reach)
    assert reach[0] == 1000.0
    assert reach[1] == 1.0
    assert 10.0 < reach[2] < 1000.0
    assert reach[3] == 1.0
    problem = objective.batch(objective.data, jax.random.key(0))
    assert np.asarray(problem.plans[0].output_step).max() > 50 * TIMES[-1]
    growing = SPEC.replaced(linear=ModalSpec(shift=0.1))
    assert (_objective(arrays, growing)[0].data.reach == 1).all()


def test_those_held_out_are_judged_in_the_units_of_those_trained_on() -> None:
    arrays = outbreaks(8)
    train, held = check_arrays(arrays), outbreaks(2)
    held["states"][:, :, 0] = 0.5 + 1e-6 * TIMES
    spec, training, _ = resolve(train, SPEC, TRAINING)
    surrogate = create_surrogate(train, spec, 0)
    objective = PairObjective(train, check_arrays(held), surrogate, training, 0)
    weights = np.asarray(objective.validation.samples.weight)
    assert weights[..., 0].max() < 100


def test_pairs_are_samples_of_one_trajectory_in_their_order() -> None:
    arrays = outbreaks(5)
    arrays["states"][:, :, 0] = np.arange(5)[:, None] * 100 + np.arange(31)
    arrays["states"][:, :, 1] = 1.0
    mask = np.ones((5, 31, 2), bool)
    mask[3, 4:9, 1] = False
    mask[4, 20:] = False
    arrays["mask"] = mask
    objective, surrogate = _objective(arrays, batch=4000)
    problem = objective.batch(objective.data, jax.random.key(1))
    scaling = surrogate.normaliser.states
    start = np.asarray(problem.samples.x0)[:, 0]
    ends = jax.vmap(scaling.restore)(problem.samples.target[:, 0])
    end = np.asarray(ends)[:, 0].round(6)
    row, first = np.divmod(start, 100)
    np.testing.assert_array_equal(row, end // 100)
    last = end % 100
    assert (last >= first).all()
    steps = np.asarray(problem.plans[0].output_step)[:, 0]
    apart = TIMES[last.astype(int)] - TIMES[first.astype(int)]
    np.testing.assert_allclose(steps, apart, atol=1e-12)
    # No sample with a gap is a start, and what is missing weighs nothing.
    assert not ((row == 3) & (first >= 4) & (first < 9)).any()
    assert last[row == 4].max() == 19
    weight = np.asarray(problem.samples.weight)[:, 0]
    gap = (row == 3) & (last >= 4) & (last < 9)
    assert gap.any()
    assert (weight[gap, 1] == 0).all()
    assert (weight[gap, 0] > 0).all()
    assert 0.3 < (first == 0).mean() < 0.45


def _objective(
    arrays: dict, spec: SurrogateSpec | None = None, batch: int = 256
) -> tuple[PairObjective, Surrogate]:
    dataset = check_arrays(arrays)
    plain = SPEC.replaced(autoencoder=ResidualSpec(), precision="float64")
    training = TrainingSpec(pairs=True, batch=batch, loss="uniform")
    spec, training, _ = resolve(dataset, spec or plain, training)
    surrogate = create_surrogate(dataset, spec, 0)
    return PairObjective(dataset, dataset, surrogate, training, 0), surrogate


LOGS = {"autoencoder": ResidualSpec(logarithms=("seed",))}


@pytest.mark.parametrize(
    ("surrogate", "training", "field"),
    [
        ({"nonlinear": RelaxationSpec()}, {}, "training.pairs"),
        ({"integrator": "rodas4"}, {}, "training.pairs"),
        ({"propagators": "matrix_free"}, {}, "training.pairs"),
        ({}, {"horizon": (4,)}, "training.horizon"),
        ({}, {"later_starts": 1}, "training.later_starts"),
        ({}, {"polish": "lbfgs"}, "training.polish"),
        (LOGS, {"noise": 0.1}, "training.noise"),
        (
            {"autoencoder": ResidualSpec(logarithms=("smoke",))},
            {},
            "surrogate.autoencoder.logarithms",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(surrogate, training, field) -> None:
    with pytest.raises(InvalidInput) as caught:
        fit(
            check_arrays(outbreaks()),
            SurrogateSpec(**{"nonlinear": NONE, **surrogate}),
            TrainingSpec(iterations=5, pairs=True, **training),
        )
    assert caught.value.field == field


def test_members_that_no_time_is_left_for_are_left_out() -> None:
    dataset = check_arrays(outbreaks())
    parts = Parts.of(dataset, SplitSpec(), 0)
    spec, training, choices = resolve(
        parts.train, SPEC, TRAINING.replaced(iterations=5)
    )
    reporter = Reporter(None, None, 1e9)
    given = {"identity": {}, "path": None, "checkpoint_s": 10.0}
    execution = Execution(parts, spec, training, 0, reporter, seeds=(0,), **given)
    surrogate, record = execution.run()
    entry = Entry("Koopman", execution, surrogate, record, choices, 0.1)
    both = entry.completed((0, 1))
    assert both.surrogate.signature.members == 2
    assert both.record.outcome == "all iterations done"
    execution.seeds = (0,)
    reporter.earlier_s = 1e9
    alone = entry.completed((0, 1))
    assert alone.surrogate.signature.members == 1
    assert "no other member was made: too little of max_seconds" in alone.record.outcome


def test_a_candidate_ends_with_its_share_of_the_time() -> None:
    dataset = check_arrays(outbreaks())
    parts = Parts.of(dataset, SplitSpec(), 0)
    spec, training, _ = resolve(parts.train, SPEC, TRAINING.replaced(iterations=10_000))
    reporter = Reporter(None, None, 20.0)
    reporter.earlier_s = 6.0
    given = {"identity": {}, "path": None, "checkpoint_s": 10.0, "share": 0.3}
    execution = Execution(parts, spec, training, 0, reporter, seeds=(0,), **given)
    _, record = execution.run()
    assert record.iteration < 10_000
    assert record.outcome.startswith("its share of max_seconds reached")


@pytest.mark.parametrize(
    "fields",
    [
        {"conserved": {"mass": {"fuel": 1.0, "seed": 1.0}}},
        {"positive": True},
        {"linear": ModalSpec(depends_on_parameters=True)},
        {"linear": HurwitzSpec()},
    ],
    ids=["conserved", "positive", "parameters", "hurwitz"],
)
def test_other_decoders_and_operators_learn_from_pairs_too(fields) -> None:
    arrays = outbreaks()
    capacity = arrays["states"][:, :1].sum(axis=2)
    arrays |= {"parameters": capacity, "parameter_names": np.array(["capacity"])}
    dataset = check_arrays(arrays)
    run = fit(
        dataset, SPEC.replaced(**fields), TRAINING.replaced(iterations=60, batch=64)
    )
    losses = [each["validation_loss"] for each in run.history]
    assert min(losses) < 0.7 * losses[0]
    x = np.asarray(
        run.surrogate.rollout(dataset.states[:, 0], TIMES, parameters=capacity)
    )
    if "conserved" in fields:
        np.testing.assert_allclose(x.sum(axis=2), np.repeat(capacity, 31, 1), rtol=1e-9)
    if "positive" in fields:
        assert (x >= 0).all()


def test_a_plan_of_one_step_needs_no_grid() -> None:
    """The loss of pairs is that of rollouts: the same function, one step each."""
    objective, surrogate = _objective(outbreaks(), batch=8)
    problem = objective.batch(objective.data, jax.random.key(2))
    one = rollout(
        surrogate,
        problem.samples.x0,
        problem.plans[0],
        problem.samples.parameters,
    )
    steps = np.asarray(problem.plans[0].output_step)
    for row, x0 in enumerate(problem.samples.x0):
        expected = surrogate.rollout(np.asarray(x0), steps[row])
        np.testing.assert_allclose(one[row], expected, atol=1e-12)
