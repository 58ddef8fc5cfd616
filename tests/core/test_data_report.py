import dataclasses
import json

import numpy as np
import pytest

from spnode_core import systems
from spnode_core.conserved_sums import conserved_sums
from spnode_core.data_report import choose_kind, duplicates, summarise
from spnode_core.dataset import check_arrays


def reaction(*, known=False, noise=0.0):
    """A <-> B on scales 1e5 apart, C <-> 2 D, and E that never moves."""
    rng = np.random.default_rng(3)
    times = np.linspace(0, 5, 20)
    start = rng.uniform(0.5, 1, (12, 5))
    kept = np.exp(-times)[:, None]
    a, b, c, d, e = (start[:, None, [i]] for i in range(5))
    moved_ab = (1e-5 * (1 - kept) * a, 1e-5 * (1 - kept) * a)
    moved_cd = (1 - np.exp(-3 * times)[:, None]) * c
    states = np.concatenate(
        [
            a - moved_ab[0],
            b + moved_ab[1],
            c - moved_cd,
            d + 2 * moved_cd,
            e + 0 * kept,
        ],
        axis=2,
    )
    states += noise * rng.normal(size=states.shape)
    arrays = {"states": states, "times": times, "names": np.array(list("abcde"))}
    if known:
        arrays |= {"conserved": np.array([[0, 0, 2, 1, 0]]), "conserved_names": ["cd"]}
    return check_arrays(arrays)


def test_sums_that_hold_are_found_with_whole_coefficients():
    assert conserved_sums(reaction()) == [{"a": 1, "b": 1}, {"c": 2, "d": 1}]


def test_a_sum_that_the_dataset_names_is_not_found_again():
    assert conserved_sums(reaction(known=True)) == [{"a": 1.0, "b": 1.0}]


def test_noise_hides_a_sum():
    assert conserved_sums(reaction(noise=1e-3)) == []


def test_robertson_s_mass_is_found_though_one_species_is_tiny():
    dataset = systems.generate("robertson", 20, seed=0)
    assert conserved_sums(dataset) == []
    blank = dataclasses.replace(dataset, conserved={})
    assert conserved_sums(blank) == [{"y1": 1.0, "y2": 1.0, "y3": 1.0}]


def test_fields_are_not_searched_for_sums():
    dataset = systems.generate("kuramoto_sivashinsky", 2, seed=0)
    assert conserved_sums(dataset) == []


def test_equal_trajectories_are_named_with_the_first_of_them():
    dataset = reaction()
    doubled = dataset.take(np.array([0, 1, 2, 1, 0, 1]))
    assert duplicates(doubled) == [[1, 3], [0, 4], [1, 5]]
    assert summarise(doubled)["duplicates"] == [[1, 3], [0, 4], [1, 5]]
    assert duplicates(dataset) == []


def test_the_report_says_how_stiff_and_how_to_normalise():
    times = np.append(0, np.logspace(-4, 2, 60))
    start = np.linspace(1, 2, 8)[:, None, None]
    fast, slow = np.exp(-1e3 * times)[:, None], np.exp(-0.1 * times)[:, None]
    states = np.concatenate([start * slow, start * fast + 1e-9], axis=2)
    report = summarise(check_arrays({"states": states, "times": times}))
    # The run lasts 100, the fast state's time scale is about 1e-3.
    assert report["stiffness"] == pytest.approx(1e5, rel=0.2)
    kinds = {name: each["normalisation"] for name, each in report["states"].items()}
    assert kinds == {"x1": "log", "x2": "log"}
    assert summarise(systems.generate("robertson", 5))["states"]["y3"][
        "normalisation"
    ] == ("linear")


def test_missing_samples_and_ragged_trajectories_are_described():
    dataset = reaction()
    arrays = {
        "states": dataset.states.copy(),
        "times": dataset.times[0],
        "lengths": np.array([20] * 10 + [7, 9]),
    }
    arrays["states"][2, 3, 1] = np.nan
    mask = np.isfinite(arrays["states"])
    report = summarise(check_arrays(arrays | {"mask": mask}))
    assert report["missing"] == 1
    assert report["samples_per_trajectory"] == [7, 20]
    assert report["sums_found"] == [{"x1": 1.0, "x2": 1.0}, {"x3": 2, "x4": 1}]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("large", [1e150, 1.0])
@pytest.mark.parametrize("small", [5e-324, 1e-150])
def test_a_summary_is_of_numbers_however_large_and_small_they_are(large, small):
    """All of these lie within what a dataset may hold, their quotients do not."""
    rng = np.random.default_rng(0)
    states = rng.uniform(-1, 1, (6, 9, 4)) * [large, large, small, 1.0]
    states[0, 1, 0] = small
    states[:, :, 1] = -states[:, :, 0]
    times = np.concatenate([[0.0, small], np.geomspace(1.0, large + 9, 7)])
    found = summarise(check_arrays({"states": states, "times": times}))
    json.dumps(found, allow_nan=False)
    assert found["times"]["decades"] == pytest.approx(
        np.log10(times[-1]) - np.log10(small)
    )
    positive = summarise(check_arrays({"states": np.abs(states), "times": times}))
    json.dumps(positive, allow_nan=False)
    assert choose_kind(np.array([small, large])) == "log"


def test_states_that_do_not_move_are_named_by_whether_they_differ():
    states = np.random.default_rng(0).uniform(size=(3, 4, 4))
    states[:, :, 1] = 3.0
    states[:, :, 2] = np.array([1.0, 2.0, 1.0])[:, None]
    states[:, :, 3] = 0.0
    states[2, 3, 3] = 1e-300
    mask = np.ones(states.shape, bool)
    mask[:, 2] = False
    states[:, 2] = np.nan
    arrays = {"states": states, "times": np.arange(4.0), "mask": mask}
    report = summarise(check_arrays(arrays))
    assert report["constant"] == ["x2"]
    assert report["constant_along"] == ["x3"]
    alone = summarise(check_arrays(arrays).take(np.array([0])))
    assert (alone["constant"], alone["constant_along"]) == (["x2", "x3", "x4"], [])
