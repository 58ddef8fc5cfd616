"""The step rule: plans reach every time, and padding and neighbours change nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spnode_core.errors import InvalidInput
from spnode_core.spec import GridStepsSpec, UniformStepsSpec
from spnode_core.timegrid import TimeGrid

LOG = TimeGrid(np.concatenate([[0.0], np.logspace(-5, 5, 50)]))
UNIFORM = TimeGrid.from_spec(UniformStepsSpec(step=0.25))


def reached(plan):
    """The times that a plan's steps and remainders add up to."""
    steps = np.concatenate([[0.0], np.cumsum(plan.distinct[plan.step_kind])])
    return steps[plan.output_index] + plan.output_step


@pytest.mark.parametrize("grid", [LOG, UNIFORM])
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_plans_reach_the_times_that_were_asked_for(grid, data):
    times = data.draw(
        st.lists(st.floats(0, 3e5 if grid is LOG else 40), min_size=1, max_size=20)
    )
    times = np.sort(times)
    plan = grid.plan(times)
    np.testing.assert_allclose(reached(plan), times, rtol=1e-9, atol=1e-15)
    assert (plan.output_step >= 0).all()


def test_stored_times_are_met_exactly_even_with_rounding():
    plan = LOG.plan(LOG.times * (1 + 2e-16))
    assert plan.on_grid
    np.testing.assert_array_equal(plan.output_index, np.arange(51))


def test_uniform_steps_are_one_kind_however_many():
    plan = TimeGrid.from_spec(UniformStepsSpec(step=0.1)).plan([1234.5])
    assert plan.steps == 12345
    np.testing.assert_array_equal(plan.distinct, [0.1])


def test_a_time_never_depends_on_the_others_in_the_request():
    alone = LOG.plan([3.3])
    among = LOG.plan([1e-4, 3.3, 77.0, 9e4])
    assert alone.output_index[0] == among.output_index[1]
    assert alone.output_step[0] == among.output_step[1]


def test_control_times_join_the_grid_and_hold_until_the_next():
    plan = UNIFORM.plan([0.5, 0.6], control_times=[0.0, 0.3])
    np.testing.assert_allclose(plan.distinct[plan.step_kind], [0.25, 0.05, 0.2])
    np.testing.assert_array_equal(plan.step_control, [0, 0, 1])
    np.testing.assert_array_equal(plan.output_control, [1, 1])


def test_logarithmic_grids_go_on_geometrically_and_others_evenly():
    times = LOG.extended(1e7)
    assert times[-1] >= 1e7
    np.testing.assert_allclose(times[-1] / times[-2], times[40] / times[39])
    even = TimeGrid(np.array([0.0, 1.0, 2.0, 3.0])).extended(5.5)
    np.testing.assert_allclose(even, np.arange(7.0))


@pytest.mark.parametrize("end", [1e308, np.finfo(np.float64).max])
def test_grids_reach_the_largest_numbers_or_say_that_they_do_not(end):
    for per_decade in (1, 2, 5):
        times = 10.0 ** np.arange(-3, 3 + 1 / per_decade, 1 / per_decade)
        plan = TimeGrid(np.concatenate([[0.0], times])).plan([0.5, end])
        np.testing.assert_allclose(reached(plan), [0.5, end], rtol=1e-9)
    even = TimeGrid(np.array([0.0, 0.1, 0.2, 0.3]))
    for grid in (even, UNIFORM):
        with pytest.raises(InvalidInput, match="at most 1000000 steps"):
            grid.plan([end])


def test_refining_splits_by_ratio_where_the_grid_is_logarithmic():
    fine = LOG.refined(2).times
    assert len(fine) == 101
    np.testing.assert_allclose(fine[3], np.sqrt(fine[2] * fine[4]))
    np.testing.assert_allclose(fine[1], fine[2] / 2)
    np.testing.assert_array_equal(fine[::2], LOG.times)
    assert UNIFORM.refined(4).uniform == 0.0625


def test_padding_adds_empty_steps_and_repeats_the_last_output():
    plan = LOG.plan([1.0, 2e5])
    padded = plan.padded(64, 8)
    assert padded.steps == 64
    assert padded.outputs == 8
    np.testing.assert_array_equal(padded.distinct[padded.step_kind][plan.steps :], 0)
    np.testing.assert_allclose(reached(padded)[1:], 2e5)
    few = UNIFORM.plan([1.0, 1.1]).padded(16, 2)
    np.testing.assert_array_equal(few.distinct[few.step_kind][4:], 0)
    with pytest.raises(ValueError, match="cannot be padded"):
        plan.padded(3, 8)


GRIDS = {
    "uniform": UNIFORM,
    "few lengths": TimeGrid(np.array([0.0, 1.0, 2.0, 4.0, 6.0])),
    "all differ": TimeGrid(np.array([0.0, 1.0, 2.5, 4.7, 6.0])),
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("switches", [None, [0.0, 0.7]])
def test_padding_never_makes_repeated_steps_look_as_if_all_differed(grid, switches):
    for count in range(1, 40):
        end = count * (grid.uniform or 1.0)
        plan = grid.plan([end], switches)
        for steps in range(plan.steps, plan.steps + 9):
            padded = plan.padded(steps, 4)
            widths = padded.distinct[padded.step_kind]
            # A rollout takes them in their order where there are as many as steps.
            if len(padded.distinct) == padded.steps:
                widths = padded.distinct
            np.testing.assert_array_equal(
                widths[: plan.steps], plan.distinct[plan.step_kind]
            )
            np.testing.assert_array_equal(widths[plan.steps :], 0)


@pytest.mark.parametrize(
    ("times", "place", "words"),
    [
        ([0.0, 2.0, 1.0], r"times\[2\]", "negative time step"),
        ([-1.0, 2.0], r"times\[0\]", "at least 0"),
        ([0.0, np.nan], r"times\[1\]", "finite"),
        ([], "times", "at least one"),
        ([["a"]], "times", "numbers"),
        ([1e300], "times", "at most 1000000 steps"),
    ],
)
def test_wrong_times_are_refused_by_place(times, place, words):
    with pytest.raises(InvalidInput, match=f"{place}.*{words}"):
        UNIFORM.plan(times)


def test_grids_that_do_not_begin_with_0_are_refused():
    with pytest.raises(ValueError, match="begin with 0"):
        GridStepsSpec(times=(1.0, 2.0))
