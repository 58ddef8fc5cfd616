"""Times of events, of rollouts and of the truth."""

import numpy as np
import pytest

from spnode_core import check_arrays
from spnode_core.dataset import Dataset
from spnode_core.timing import timing_errors


def _waves(period: float, times: np.ndarray) -> np.ndarray:
    """Two heights of a wave, beside a state that rests."""
    wave = np.cos(2 * np.pi * times / period)
    return np.stack([[h * wave, np.ones_like(wave)] for h in (1, 2)]).swapaxes(1, 2)


def _data(states: np.ndarray, times: np.ndarray) -> Dataset:
    mask = np.isfinite(states)
    names = ["wave", "rest"]
    return check_arrays(
        {"states": states, "times": times, "names": names, "mask": mask}
    )


@pytest.fixture(scope="module")
def times() -> np.ndarray:
    return np.linspace(0.0, 10.0, 1001)


def test_a_slow_clock_is_wrong_by_its_rate(times) -> None:
    data = _data(_waves(2.0, times), times)
    found = timing_errors(_waves(2.02, times), data)
    # Two passages in each of five periods, twice; the state that rests has none.
    assert set(found) == {"wave"}
    assert found["wave"]["events"] == 20
    assert found["wave"]["missed"] == 0
    assert found["wave"]["error"] == pytest.approx(0.01, rel=1e-3)


def test_the_truth_itself_has_no_timing_error(times) -> None:
    data = _data(_waves(3.0, times), times)
    assert timing_errors(data.states, data)["wave"]["error"] == 0


def test_a_rollout_that_rests_misses_all_events(times) -> None:
    data = _data(_waves(2.0, times), times)
    found = timing_errors(np.ones_like(data.states), data)["wave"]
    assert found == {"events": 20, "missed": 1.0, "error": None}


def test_missing_samples_are_left_out(times) -> None:
    states = _waves(2.0, times)
    states[0, 40:45, 0] = np.nan
    data = _data(states, times)
    found = timing_errors(_waves(2.0, times), data)["wave"]
    assert found["events"] == 20
    assert found["error"] == pytest.approx(0, abs=1e-12)


def test_an_event_that_no_sample_resolves_counts_by_the_first_of_them() -> None:
    times = np.array([0.0, 1.0, 2.0, 3.0])
    truth = np.array([[0.5 - 1e-9, 1.0, 1.0, 0.0]])[..., None]
    moved = np.array([[0.4, 1.0, 1.0, 0.0]])[..., None]
    data = check_arrays({"states": truth, "times": times})
    found = timing_errors(moved, data)["x1"]
    assert found["events"] == 2
    # A sixth of the first interval late, and not by a factor of 1e8.
    assert found["error"] == pytest.approx((1 / 6) / 2**0.5, rel=1e-6)
