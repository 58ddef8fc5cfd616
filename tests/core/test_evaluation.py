"""What is said of a surrogate's errors: over time, trajectories, restarts; in words."""

import numpy as np
import pytest

from spnode_core.dataset import check_arrays
from spnode_core.deviations import Deviations, spread
from spnode_core.restarts import restarts
from spnode_core.timegrid import TimeGrid
from spnode_core.verdict import warnings_of

LOGARITHMIC = TimeGrid(np.append(0.0, np.logspace(-3, 3, 13)))


def measured(**more):
    states = {
        "a": {"normalised_rmse": 0.02, "max_abs_scaled": 0.05},
        "b": {"normalised_rmse": 0.31, "max_abs_scaled": 0.2},
    }
    return {"states": states, "refinement_error": 0.01, **more}


def baselines(**by_name):
    return {
        "baselines": {
            name: {"states": dict(zip("ab", errors, strict=True))}
            for name, errors in by_name.items()
        }
    }


def test_an_error_of_one_is_that_of_the_mean():
    draws = np.random.default_rng(0)
    values = draws.normal(3.0, 5.0, (20, 30, 2))
    values[..., 1] = 4.0
    mask = draws.uniform(size=values.shape) > 0.2
    size = spread(values, mask)
    assert size[0] == pytest.approx(values[..., 0][mask[..., 0]].std())
    assert size[1] == 1.0
    mean = values[..., 0][mask[..., 0]].mean()
    errors = np.where(mask, (mean - values) / size, 0.0)
    found = Deviations(("a", "b"), errors, mask, np.zeros((20, 30)))
    assert found.by_state["a"] == pytest.approx(1.0)


def test_errors_are_told_over_time_and_over_trajectories():
    errors = np.zeros((3, 4, 2))
    errors[1] = 0.1
    errors[2, 3] = [0.5, 0.7]
    mask = np.ones(errors.shape, bool)
    mask[0, 3] = False
    elapsed = np.tile([0.0, 1e-3, 1.0, 1e3], (3, 1))
    found = Deviations(("a", "b"), errors, mask, elapsed)
    bins = found.over_time(LOGARITHMIC.bins(1e3))
    assert [each["samples"] for each in bins] == [6, 3, 2]
    assert bins[0]["from"] == 0.0
    assert bins[-1]["to"] == pytest.approx(1e3)
    assert bins[-1]["worst_state"] == "b"
    squares = [0.1**2, 0.1**2, 0.5**2, 0.7**2]
    assert bins[-1]["normalised_rmse"] == pytest.approx(np.sqrt(np.mean(squares)))
    told = found.over_trajectories()
    assert told["worst"]["trajectory"] == 2
    assert told["median"] == pytest.approx(0.1)


def test_bins_follow_the_grid():
    assert LOGARITHMIC.bins(1e3) == pytest.approx(
        np.append(0.0, 10 ** np.linspace(-3, 3, 11)[1:])
    )
    uniform = TimeGrid(np.array([0.0, 0.5]), uniform=0.5)
    assert uniform.bins(10.0) == pytest.approx(np.arange(11.0))
    assert uniform.bins(1.0) == pytest.approx([0.0, 0.5, 1.0])


def test_what_a_trivial_model_does_as_well_is_said():
    good = baselines(constant=(1.0, 1.0), nearest_trajectory=(0.03, 0.28))
    assert warnings_of(measured(**good)) == [
        "no better than nearest trajectory on b: 0.31 against 0.28"
    ]
    assert warnings_of(measured(**baselines(constant=(1.0, 0.4)))) == []


@pytest.mark.parametrize("trivial", [{"constant": (1.0, 1.06)}, {}])
def test_an_error_of_the_spread_is_said_whatever_trivial_models_do(trivial):
    found = measured(**baselines(**trivial))
    found["states"]["b"]["normalised_rmse"] = 1.021
    assert warnings_of(found) == [
        "no skill on b: it errs by 102 % of its spread, and its mean by 100 %"
    ]
    found["states"]["b"]["normalised_rmse"] = 0.99
    assert warnings_of(found) == []


def test_a_state_is_warned_of_once_and_many_are_counted():
    found = measured(**baselines(constant=(1.0, 0.9)))
    found["states"]["b"]["normalised_rmse"] = 1.02
    assert warnings_of(found) == ["no better than constant on b: 1 against 0.9"]
    found["states"]["b"]["normalised_rmse"] = 2134.0
    assert warnings_of(found) == ["no better than constant on b: 2,134 against 0.9"]
    found = measured() | {"refinement_error": 0.0}
    found["states"] = {f"y{n}": {"normalised_rmse": 1.0 + n} for n in range(5)}
    first, *_, last = warnings_of(found)
    assert first.startswith("no skill on y4: it errs by 500 %")
    assert last == "no skill on 2 other states"


def test_a_state_that_no_trajectory_holds_is_passed_over():
    found = measured(**baselines(constant=(1.0, 1.0)))
    del found["states"]["b"]["normalised_rmse"]
    del found["baselines"]["constant"]["states"]["b"]
    assert warnings_of(found) == []


def test_states_that_never_move_are_no_reason_to_warn():
    found = measured(**baselines(constant=(0.0, 1.0)))
    found["states"]["a"]["normalised_rmse"] = 1e-9
    assert warnings_of(found) == []


def test_a_rollout_that_does_not_begin_where_it_should_is_said():
    start = {"states": {"a": 0.29, "b": 0.98}}
    (said,) = warnings_of(measured(start=start))
    assert said == "at the start b is not what a rollout was given: 0.98"
    start = {"states": dict.fromkeys("abcde", float("nan"))}
    assert warnings_of(measured(start=start))[-1] == "nor are 2 other states"


def test_starts_from_the_middle_and_steps_that_matter_are_said():
    later = {"normalised_rmse": 0.5, "from_start": 0.2}
    assert "middle of a trajectory" in warnings_of(measured(mid_trajectory=later))[0]
    assert warnings_of(measured(mid_trajectory=later | {"from_start": 0.3})) == []
    found = measured(mid_trajectory=None) | {"refinement_error": 0.3}
    assert "depends on its steps" in warnings_of(found)[0]


@pytest.mark.parametrize("control", [False, True])
def test_restarts_are_the_rest_of_a_trajectory(control):
    draws = np.random.default_rng(0)
    arrays = {
        "states": draws.normal(size=(10, 30, 2)),
        "times": np.cumsum(draws.uniform(0.1, 1.0, (10, 30)), axis=1),
        "mask": np.arange(30) < draws.integers(3, 31, 10)[:, None],
    }
    if control:
        arrays["controls"] = draws.normal(size=(10, 30, 1))
    dataset = check_arrays(arrays)
    found = restarts(dataset, seed=1)
    assert found is not None
    pieces, rows, samples = found
    assert pieces.mask[:, 0].all()
    assert (samples[:, 0] > 0).all()
    assert pieces.present[:, 1:].any(axis=1).all()
    truth = dataset.states[rows[:, None], samples]
    assert np.array_equal(pieces.states, truth, equal_nan=True)
    assert (np.diff(pieces.times, axis=1) >= 0).all()
    # No sample counts twice.
    for piece, row in enumerate(rows):
        used = samples[piece][pieces.present[piece]]
        assert len(set(used)) == len(used)
        assert dataset.present[row, used].all()
    if control:
        assert len(set(samples[:, 0])) == 1
        assert len(rows) >= 5


def test_trajectories_of_two_samples_have_no_middle():
    dataset = check_arrays({"states": np.ones((3, 2, 1)), "times": [0.0, 1.0]})
    assert restarts(dataset, seed=0) is None
