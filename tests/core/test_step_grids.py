"""Step grids: what samples tell of the times between them, and steps that differ."""

import numpy as np
import pytest

from spnode_core.dataset import check_arrays
from spnode_core.spec import GridStepsSpec, SurrogateSpec, UniformStepsSpec
from spnode_core.timegrid import TimeGrid
from spnode_core.training.candidates import fallback
from spnode_core.training.step_grids import (
    UNRESOLVED,
    missed_between,
    shifted_steps,
    step_grid,
)

GEOMETRIC = np.append(0.0, np.geomspace(1e-7, 1e-2, 80))


def jumps(times, width, scale=1.0):
    """A jump at another time in each trajectory, and a slow state beside it."""
    at = np.geomspace(3e-6, 1e-3, 30)
    steep = np.tanh(np.log((times + 1e-9) / at[:, None]) / width)
    slow = np.broadcast_to(np.log(times + 1e-7), steep.shape)
    return check_arrays(
        {"states": np.stack([scale * steep, slow], axis=2), "times": times}
    )


def test_a_jump_within_a_step_is_missed_and_one_over_many_is_not():
    assert missed_between(jumps(GEOMETRIC, 0.02)) > UNRESOLVED
    assert missed_between(jumps(GEOMETRIC, 1.0)) < 0.2 * UNRESOLVED


def test_units_and_missing_samples_change_nothing_of_it():
    plain = missed_between(jumps(GEOMETRIC, 0.02))
    assert missed_between(jumps(GEOMETRIC, 0.02, 1e-12)) == pytest.approx(plain)
    whole = jumps(GEOMETRIC, 0.02)
    states = whole.states.copy()
    states[::3, -5:] = np.nan
    mask = ~np.isnan(states)
    ragged = check_arrays({"states": states, "times": GEOMETRIC, "mask": mask})
    assert missed_between(ragged) == pytest.approx(plain, rel=0.2)


def test_trajectories_of_two_samples_tell_nothing():
    short = check_arrays(
        {"states": np.arange(8.0).reshape(4, 2, 1), "times": np.array([0.0, 1.0])}
    )
    assert missed_between(short) == 0.0


def parts(grid, times):
    """At which part of a step of the grid each time lies."""
    step = np.searchsorted(grid, times, side="right") - 1
    return (times - grid[step]) / (grid[step + 1] - grid[step])


@pytest.mark.parametrize(
    "times",
    [GEOMETRIC, np.linspace(0, 3, 81) ** 1.05, np.linspace(0.0, 3.0, 81)],
    ids=["logarithmic", "stretched", "uniform"],
)
def test_samples_lie_at_all_parts_of_shifted_steps(times):
    is_uniform = np.ptp(np.diff(times)) < 1e-9
    given = (
        UniformStepsSpec(step=times[1])
        if is_uniform
        else GridStepsSpec(times=tuple(times))
    )
    grid = TimeGrid.from_spec(shifted_steps(given)).extended(times[-1])
    assert len(grid) == pytest.approx(1.118 * len(times), abs=2)
    assert grid[-1] == pytest.approx(times[-1]) or is_uniform
    found = np.histogram(parts(grid, times[1:-1]), bins=5, range=(0, 1))[0]
    assert found.min() > 0.5 * found.mean()


def test_the_relaxation_form_steps_between_samples_where_they_miss_something():
    steep, smooth = jumps(GEOMETRIC, 0.02), jumps(GEOMETRIC, 1.0)
    found = fallback(steep, None, None)
    assert found.spec.steps == shifted_steps(step_grid(steep)[0])
    (why,) = [
        each["why"]
        for each in found.choices
        if each["what"] == "surrogate.steps" and "what happens between" in each["why"]
    ]
    assert "samples lie inside steps" in why
    assert fallback(smooth, None, None).spec.steps == step_grid(smooth)[0]
    fixed = SurrogateSpec(steps=step_grid(steep)[0])
    assert fallback(steep, fixed, None).spec.steps == fixed.steps


def test_early_samples_of_long_trajectories_stay_in_the_grid():
    times = np.append(0.0, np.geomspace(1e-6, 1e11, 18))
    states = np.exp(-times / 1e9)[None, :, None] * np.array([1.0, 2.0])[:, None, None]
    steps, _ = step_grid(check_arrays({"states": states, "times": times}))
    assert isinstance(steps, GridStepsSpec)
    np.testing.assert_array_equal(steps.times, times)


def test_times_since_1970_leave_no_steps_of_their_rounding():
    rng = np.random.default_rng(0)
    starts = 1.7e9 + rng.uniform(0, 1e6, 6)
    times = starts[:, None] + 0.1 * np.arange(40)
    states = np.exp(-0.1 * np.arange(40))[None, :, None] * rng.uniform(1, 2, (6, 1, 1))
    steps, _ = step_grid(check_arrays({"states": states, "times": times}))
    assert isinstance(steps, UniformStepsSpec)
    assert steps.step == pytest.approx(0.1, rel=1e-5)
