"""Sums of states that no trajectory changes, and what only looks like them."""

import numpy as np
import pytest

from spnode_core.conserved_sums import conserved_sums
from spnode_core.dataset import check_arrays

RNG = np.random.default_rng(5)
# Changes of what reacts: trajectories by samples by reactions.
MOVED = np.concatenate([np.zeros((9, 1, 3)), RNG.uniform(0, 1, (9, 8, 3))], axis=1)


def sums(*columns, start=1.0):
    states = start + np.stack(columns, axis=-1)
    names = np.array(list("abcdefgh")[: len(columns)])
    times = np.arange(states.shape[1])
    return conserved_sums(
        check_arrays({"states": states, "times": times, "names": names})
    )


@pytest.mark.parametrize("size", [1e-16, 1e-17, 1e-19])
@pytest.mark.parametrize("seed", range(3))
def test_a_state_of_nothing_but_rounding_takes_no_part(size, seed):
    """The oxygen atom of POLLU is at most 1e-16 beside species of 0.1."""
    rng = np.random.default_rng(seed)
    moved = np.concatenate([np.zeros((9, 1, 4)), rng.uniform(0, 1, (9, 8, 4))], axis=1)
    a, b, c, rest = np.moveaxis(moved, -1, 0)
    slow = 1e-3 * a * c
    columns = size * rest, a, -a - b / 3, b / 3 - slow, slow, c * c
    found = sums(*columns, start=np.linspace(0.0, 0.5, 6))
    assert found == [{"b": 1, "c": 1, "d": 1, "e": 1}]


def test_a_radical_that_belongs_to_a_sum_stays_in_it():
    a, b, _ = np.moveaxis(MOVED, -1, 0)
    radical = 1e-8 * b
    found = sums(radical, a, -a - 2 * radical, start=np.array([0.0, 0.0, 0.0]))
    assert found == [{"a": 2, "b": 1, "c": 1}]


def test_whole_numbers_are_found_where_none_is_one():
    a, b, _ = np.moveaxis(MOVED, -1, 0)
    assert sums(3 * a, -2 * a, b) == [{"a": 2, "b": 3}]


@pytest.mark.parametrize("seed", range(5))
def test_noise_of_a_solver_leaves_whole_numbers(seed):
    """It changes the coefficient of what is small by more than what rounding does."""
    a, b, _ = np.moveaxis(MOVED, -1, 0)
    noise = 1e-8 * np.random.default_rng(seed).normal(size=a.shape)
    found = sums(1e-5 * b, a, -a - 1e-5 * b + noise * (a > 0))
    assert found == [{"a": 1, "b": 1, "c": 1}]


def test_sums_of_masses_have_the_numbers_that_hold():
    a, b, _ = np.moveaxis(MOVED, -1, 0)
    (found,) = sums(a, -a / 18.015 - b, 2.016 * b)
    assert found == pytest.approx({"a": 1, "b": 18.015, "c": 18.015 / 2.016})


def test_what_nearly_holds_by_odd_numbers_is_no_sum():
    """Short of the first turn everything is nearly linear, by any coefficients."""
    a, b, c = np.moveaxis(MOVED, -1, 0)
    nearly = -2056.19 * a + 1.856 * b + 1e-3 * c
    assert sums(a, -a, b, nearly) == [{"a": 1, "b": 1}]


@pytest.mark.parametrize("copies", [1, 12])
def test_of_fewer_changes_than_states_any_sum_would_be_kept(copies):
    few = np.tile(MOVED[:1, :3], (copies, 1, 1))
    a, b, c = np.moveaxis(few, -1, 0)
    assert sums(a, b, c, a * b) == []
