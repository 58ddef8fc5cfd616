"""Conformal intervals: they hold what they say, for every scaling, and promise no more."""

import numpy as np
import pytest

from spnode_core.intervals import calibrated, interval_bounds, measured_coverage
from spnode_core.spec import IntervalsSpec

EDGES = np.array([0.0, 1.0, 2.0, 4.0])
TIMES = np.linspace(0.0, 4.0, 17)
KINDS = ("linear", "log", "asinh")
WIDTHS = np.array([1.0, 1e-12, 1e-6])


def trajectories(rows, seed, *, missing=0.0):
    """Three states of different scalings, and predictions that get worse in time.

    Errors of one trajectory hang together, as those of a model do.
    """
    draws = np.random.default_rng(seed)
    base = draws.normal(size=(rows, 17, 3))
    errors = draws.normal(size=(rows, 1, 3)) * (0.1 + TIMES)[:, None]
    errors += 0.05 * draws.normal(size=base.shape)
    truth, predicted = (
        np.stack([v[..., 0], np.exp(v[..., 1]) * 1e-6, np.sinh(v[..., 2]) * 1e-6], -1)
        for v in (base, base + errors)
    )
    mask = draws.uniform(size=base.shape) >= missing
    return predicted, truth, mask, np.tile(TIMES, (rows, 1))


def calibrate(rows, seed=0, **more):
    return calibrated(
        *trajectories(rows, seed, **more), edges=EDGES, kinds=KINDS, widths=WIDTHS
    )


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_intervals_hold_as_much_of_the_truth_as_they_say(missing):
    intervals = calibrate(400, missing=missing)
    found = measured_coverage(intervals, *trajectories(400, 1, missing=missing))
    assert intervals.coverages == (0.5, 0.8, 0.9, 0.95)
    for row in found["measured"]:
        # Four standard deviations of a coverage from 400 trajectories are 8 %, of one
        # state; of three together with their bins about half.
        assert row["measured"] == pytest.approx(row["coverage"], abs=0.04)
        assert row["lowest_of_a_state"] > row["coverage"] - 0.08


def test_bounds_hold_the_prediction_and_grow_with_coverage_and_time():
    intervals = calibrate(100)
    x = trajectories(5, 2)[0]
    narrow, wide = (interval_bounds(intervals, x, TIMES, c) for c in (0.5, 0.9))
    assert (wide[0] <= narrow[0]).all()
    assert (narrow[0] <= x).all()
    assert (x <= narrow[1]).all()
    assert (narrow[1] <= wide[1]).all()
    width = (wide[1] - wide[0])[0, :, 0]
    assert width[-1] > width[1]
    # A logarithm's bounds stay above 0.
    assert (wide[0][..., 1] > 0).all()
    # Beyond the data the last bin goes on.
    later = interval_bounds(intervals, x[:, -1:], np.array([1e3]), 0.9)
    assert later[1][0, 0, 0] == wide[1][0, -1, 0]


def test_a_few_trajectories_promise_no_more_than_they_can():
    assert calibrate(9).coverages == (0.5, 0.8, 0.9)
    assert calibrate(9).largest == pytest.approx(0.9)
    assert calibrate(8).coverages == (0.5, 0.8)
    assert calibrate(1).coverages == (0.5,)
    with pytest.raises(ValueError, match=r"0\.9 is none of"):
        interval_bounds(calibrate(8), np.ones((1, 3)), np.ones(1), 0.9)


def test_every_bin_has_trajectories_enough():
    predicted, truth, mask, elapsed = trajectories(60, 0)
    mask[5:, TIMES > 2] = False
    found = calibrated(
        predicted, truth, mask, elapsed, edges=EDGES, kinds=KINDS, widths=WIDTHS
    )
    assert found.edges == (0.0, 1.0, 4.0)
    assert found.trajectories == 60


def test_a_state_that_was_never_sampled_has_no_intervals():
    predicted, truth, mask, elapsed = trajectories(20, 0)
    mask[:, 1:, 2] = False
    assert (
        calibrated(
            predicted, truth, mask, elapsed, edges=EDGES, kinds=KINDS, widths=WIDTHS
        )
        is None
    )


def test_states_that_are_never_negative_have_no_negative_bounds():
    intervals = calibrate(50).model_copy(update={"positive": True})
    lower, _ = interval_bounds(intervals, np.full((1, 17, 3), 1e-9), TIMES, 0.9)
    assert (lower >= 0).all()


def test_radii_of_the_wrong_size_are_refused():
    fields = calibrate(20).model_dump()
    with pytest.raises(ValueError, match="radii must be"):
        IntervalsSpec(**{**fields, "edges": (0.0, 1.0)})
