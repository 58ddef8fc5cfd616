"""Mass action among many species: more coefficients than are fitted at once."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from spnode_core import check_arrays, fit
from spnode_core.dataset import Dataset
from spnode_core.spec import PolynomialSpec
from spnode_core.training.candidates import GOOD, candidates
from spnode_core.training.one_step import MOST_COEFFICIENTS

SPECIES = 14
# Coefficients of degree 2: 1, each species, and each pair.
TERMS = 1 + SPECIES + SPECIES * (SPECIES + 1) // 2


def _network(trajectories: int) -> Dataset:
    """``X_i -> X_{i+1}`` in a ring, and ``X_i + X_{i+2} -> X_{i+5}`` beside it."""
    decay = np.geomspace(0.1, 30.0, SPECIES)
    meet = np.geomspace(300.0, 0.3, SPECIES)
    roll = np.roll

    def right(_: float, x: np.ndarray) -> np.ndarray:
        one, two = decay * x, meet * x * roll(x, -2)
        return roll(one, 1) - one - two - roll(two, 2) + roll(two, 5)

    times = np.append(0.0, np.geomspace(1e-4, 5.0, 39))
    draw = np.random.default_rng(0)
    states = [
        solve_ivp(right, (0, 5), x0, "LSODA", times, rtol=1e-9, atol=1e-12).y.T
        for x0 in draw.uniform(0.0, 1.0, (trajectories, SPECIES))
    ]
    return check_arrays({"states": np.stack(states), "times": times})


def test_mass_action_is_tried_whatever_the_number_of_its_coefficients() -> None:
    assert SPECIES * TERMS > MOST_COEFFICIENTS
    tried = [each.name for each in candidates(_network(4), None, None)]
    assert tried[0] == "a polynomial of degree 2"
    # Of degree 3 each state would have 680 coefficients.
    assert "a polynomial of degree 3" not in tried


def test_mass_action_of_many_species_is_found() -> None:
    run = fit(_network(40))
    assert run.surrogate.spec.nonlinear == PolynomialSpec(degree=2)
    test = run.report["metrics"]["test"]
    # Measured 2e-6; the relaxation form and the others err by a tenth and more.
    assert test["worst_state"]["normalised_rmse"] < GOOD / 10
    assert test["mid_trajectory"]["normalised_rmse"] < GOOD / 10
    start = np.zeros((1, SPECIES))
    start[0, 0] = 0.5
    states = np.asarray(run.surrogate.rollout(start, np.array([0.0, 1.0])))
    # Outside the data: the first species alone loses a tenth in a unit of time.
    assert states[0, 1, 0] == pytest.approx(0.5 * np.exp(-0.1), rel=1e-2)
