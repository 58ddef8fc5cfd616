import jax
import numpy as np
import pytest

from spnode_core.timegrid import TimeGrid
from spnode_core.training.refinements import refinements

TIMES = np.append(0.0, np.logspace(-3, 2, 11))
LOGARITHMIC = TimeGrid(TIMES)
UNIFORM = TimeGrid(np.array([0.0, 0.5]), uniform=0.5)


def steps(plan):
    return np.asarray(plan.distinct)[np.asarray(plan.step_kind)]


def plans(grid, times, factor, controls=None):
    return grid.plan(times, controls), grid.refined(factor).plan(times, controls)


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize(
    ("grid", "times"), [(LOGARITHMIC, TIMES), (UNIFORM, np.arange(6) * 0.5)]
)
def test_each_number_of_parts_is_drawn_and_is_that_refinement(grid, times, factor, key):
    found = refinements(*plans(grid, times, factor), factor)
    seen = set()
    for number in range(30):
        drawn = steps(found.draw(jax.random.fold_in(key, number)))
        parts = drawn.reshape(-1, factor)
        count = int((parts[0] > 0).sum())
        seen.add(count)
        expected = steps(grid.refined(count).plan(times))
        np.testing.assert_allclose(parts[parts > 0], expected, rtol=1e-12)
    assert seen == set(range(2, factor + 1))


def test_plans_with_outputs_or_controls_inside_intervals_are_left_alone():
    off_grid = np.append(TIMES[:-1], 50.0)
    assert refinements(*plans(LOGARITHMIC, off_grid, 2), 2) is None
    inside = float(LOGARITHMIC.refined(2).times[7])
    assert refinements(*plans(LOGARITHMIC, TIMES, 2, [0.0, inside]), 2) is None
    on_grid = [0.0, float(TIMES[3])]
    assert refinements(*plans(LOGARITHMIC, TIMES, 2, on_grid), 2) is not None
