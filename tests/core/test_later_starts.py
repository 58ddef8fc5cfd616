"""Trajectories that begin at later samples, as training sees them."""

import jax
import numpy as np

from spnode_core import TrainingSpec, check_arrays
from spnode_core.samples import build_problem
from spnode_core.training.initialise import create_surrogate
from spnode_core.training.objectives import RolloutObjective
from spnode_core.training.presets import resolve


def _ramps(**more: np.ndarray) -> dict[str, np.ndarray]:
    times = np.arange(9.0)
    states = np.arange(6.0)[:, None, None] * 100 + times[None, :, None]
    return {"states": states, "times": times, **more}


def test_each_trajectory_goes_on_from_one_of_its_samples() -> None:
    dataset = check_arrays(_ramps())
    later = dataset.from_later_samples(seed=3)
    first = later.states[:, 0, 0] % 100
    assert first.min() >= 1
    assert first.max() <= 5
    assert len(set(first.tolist())) > 1
    for row, start in enumerate(first):
        count = int(9 - start)
        assert later.present[row].sum() == count
        np.testing.assert_array_equal(
            later.states[row, :count, 0], row * 100 + start + np.arange(count)
        )
        np.testing.assert_array_equal(later.elapsed[row, :count], np.arange(count))
    again = dataset.from_later_samples(seed=3)
    np.testing.assert_array_equal(later.states, again.states)


def test_controls_move_with_their_samples() -> None:
    held = np.broadcast_to(np.arange(9.0)[None, :, None], (6, 9, 1))
    later = check_arrays(_ramps(controls=held)).from_later_samples(seed=0)
    for row in range(6):
        start = later.states[row, 0, 0] % 100
        assert later.controls[row, 0, 0] == start


def test_a_missing_sample_is_no_start() -> None:
    mask = np.ones((6, 9), bool)
    mask[:, 1:4] = False
    later = check_arrays(_ramps(mask=mask)).from_later_samples(seed=1)
    assert set((later.states[:, 0, 0] % 100).tolist()) <= {4.0, 5.0, 6.0}


def test_a_minibatch_takes_its_rows_of_the_refined_plan_too() -> None:
    dataset = check_arrays(_ramps())
    joined = dataset.joined(dataset.from_later_samples(seed=0))
    assert joined.trajectories == 12
    spec, training, _ = resolve(dataset, None, TrainingSpec(batch=4, refine=2))
    surrogate = create_surrogate(dataset, spec, seed=0)
    problem = build_problem(joined, surrogate, loss="uniform", refine=2)
    objective = RolloutObjective(
        problem, problem, training, surrogate.normaliser.states
    )
    assert objective.data.refinements is not None
    batch = objective.batch(objective.data, jax.random.key(0))
    plans = batch.problem.plans
    assert [plan.output_index.shape for plan in plans] == [(4, 9), (4, 9)]
    np.testing.assert_array_equal(plans[1].output_index, 2 * plans[0].output_index)
