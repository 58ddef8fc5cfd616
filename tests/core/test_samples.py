"""What training compares: controls that switch when a trajectory's own times say so."""

import numpy as np
import pytest

from spnode_core.dataset import check_arrays
from spnode_core.samples import problem_on
from tests.core.models import STATES, random_states, small_surrogate


def sampled_at(times, controls):
    """Trajectories of no particular states at times of their own."""
    batch, samples = times.shape
    states = np.repeat(random_states(batch)[:, None], samples, axis=1)
    arrays = {"states": states, "times": times, "controls": controls}
    return check_arrays({**arrays, "names": np.array(STATES)})


def steps_of(dataset):
    """Start and end of each step of a model, and what each row holds during it."""
    surrogate = small_surrogate(controls=1)
    problem = problem_on(dataset, surrogate, (surrogate.grid,))
    plan = problem.plans[0]
    ends = np.cumsum(np.asarray(plan.distinct)[np.asarray(plan.step_kind)])
    held = np.asarray(problem.samples.controls)[:, np.asarray(plan.step_control), 0]
    return np.append(0.0, ends[:-1]), ends, held


@pytest.mark.parametrize("clock", [0.0, 1.7e9])
def test_controls_switch_at_times_of_a_trajectory_between_steps(clock) -> None:
    # Steps of the model are half a decade long, and the switches inside them.
    times = np.array([[0.0, 0.02, 5.0, 80.0], [0.0, 7.0, 30.0, 500.0]])
    controls = np.array([[0.5, -1.0, 1.0, 0.0], [-0.3, 0.9, 0.9, -0.9]])[..., None]
    dataset = sampled_at(times + clock, controls)
    start, end, held = steps_of(dataset)
    middle = np.sqrt(np.maximum(start, 1e-6) * end)
    for row in range(2):
        known = np.searchsorted(dataset.elapsed[row], middle, side="right") - 1
        np.testing.assert_array_equal(held[row], controls[row, known, 0])


def test_equal_times_up_to_rounding_are_one_switch() -> None:
    start = np.array([[0.0], [0.1], [0.7]])
    times = start + np.arange(8) * 0.1
    controls = np.random.default_rng(0).uniform(-1, 1, (3, 8, 1))
    start, _, held = steps_of(sampled_at(times, controls))
    switches = np.isclose(start[:, None], np.arange(8) * 0.1).any(axis=0)
    assert switches[:-1].all()
    known = np.floor(start / 0.1 + 1e-6).astype(int)
    np.testing.assert_array_equal(held, controls[:, known, 0])


def test_a_step_takes_the_mean_of_controls_that_switch_more_often() -> None:
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0.1, 900.0, (5, 40)))
    times[:, 0] = 0.0
    controls = rng.uniform(-1, 1, (5, 40, 1))
    start, end, held = steps_of(sampled_at(times, controls))
    assert len(end) < 20
    for row in range(5):
        widths = np.diff(np.minimum(np.append(times[row], np.inf), end[-1]))
        total = float(np.sum(widths * controls[row, :, 0]))
        assert np.sum((end - start) * held[row]) == pytest.approx(total)
