"""Benchmark systems against independent reference values."""

import numpy as np
import pytest

from spnode_core import systems
from spnode_core.errors import InvalidInput

# Radau IIA of order 13 in 30-digit arithmetic from (1, 0, 0): t, y1, y2, y3.
ROBERTSON = np.array(
    [
        [1e-5, 0.99999960000008000, 3.9998392077264506e-7, 1.5999227237617531e-11],
        [1e-3, 0.99996000156321715, 2.9169034944881554e-5, 1.0829401837964667e-5],
        [1e-1, 0.99607774744245676, 3.5804372350422404e-5, 3.8864481851928150e-3],
        [1, 0.96645973733300350, 3.0746265785786749e-5, 3.3509516401210710e-2],
        [1e2, 0.61723488239608776, 6.1535912746391851e-6, 0.38275896401263760],
        [1e3, 0.33687453066070691, 2.0137023182613933e-6, 0.66312345563697483],
        [1e5, 0.017865921142099465, 7.2747514684363188e-8, 0.98213400611038585],
    ]
)


def test_robertson_reference_agrees_with_thirty_digit_arithmetic():
    times = np.append(0.0, ROBERTSON[:, 0])
    states = systems.get("robertson").reference(np.array([[1.0, 0, 0]]), times)[0, 1:]
    error = np.abs(states - ROBERTSON[:, 1:]) / [1, 3.65e-5, 1]
    # LSODA at rtol 1e-9 stays within 1.6e-8 of Radau in scaled units.
    assert error.max() < 2e-8


def test_robertson_dataset_conserves_mass_and_repeats():
    dataset = systems.generate("robertson", 5, seed=1)
    assert dataset.states.shape == (5, 51, 3)
    mass = dataset.states.sum(axis=2)
    assert np.abs(mass - mass[:, :1]).max() < 1e-12
    assert (dataset.states[:, 1:] > 0).all()
    assert dataset.conserved == {"mass": {"y1": 1.0, "y2": 1.0, "y3": 1.0}}
    assert dataset.digest == systems.generate("robertson", 5, seed=1).digest
    assert dataset.digest != systems.generate("robertson", 5, seed=2).digest


def kuramoto_start():
    s = 2 * np.pi * np.arange(64) / 64
    return (np.cos(s) * (1 + np.sin(s)))[None]


def test_kuramoto_sivashinsky_reproduces_recorded_values():
    ks = systems.get("kuramoto_sivashinsky")
    states = ks.reference(kuramoto_start(), np.array([0.0, 1, 10, 50]), rtol=1e-11)
    first = [0.76642028154, -1.26145200094, -0.01230701942]
    tenth = [1.56090205874, 1.70136929899, 1.46833417336]
    energy = [0.78415648921, 1.10422120330, 0.87611030371]
    assert np.abs(states[0, 1:, 0] - first).max() < 1e-9
    assert np.abs(states[0, 1:, 10] - tenth).max() < 1e-9
    assert np.abs((states[0, 1:] ** 2).mean(axis=1) - energy).max() < 1e-9


def test_kuramoto_sivashinsky_error_falls_with_the_fourth_power_of_the_step():
    ks = systems.get("kuramoto_sivashinsky")
    times = np.array([0.0, 10.0])
    exact = ks.reference(kuramoto_start(), times, rtol=1e-12)[:, 1]
    # rtol falls 16-fold, the step 2-fold (from 0.05, which divides 10).
    errors = [
        np.abs(ks.reference(kuramoto_start(), times, rtol=rtol)[:, 1] - exact).max()
        for rtol in (3e-7, 3e-7 / 16, 3e-7 / 256)
    ]
    slopes = np.log2(errors[:-1]) - np.log2(errors[1:])
    assert np.abs(slopes - 4).max() < 0.3


def test_kuramoto_sivashinsky_starts_lie_on_the_attractor():
    dataset = systems.generate("kuramoto_sivashinsky", 12, seed=0, end=20.0)
    # std 1.186 over 400,000 units; 12 trajectories of 20 units scatter by some percent.
    assert dataset.states.std() == pytest.approx(1.186, rel=0.06)
    assert dataset.states.shape == (12, 21, 64)


def test_transient_growth_without_nonlinearity_is_the_matrix_exponential():
    system = systems.get("transient_growth", strength=0.0)
    x0 = system.sample(20, seed=0)
    t = system.times()
    states = system.reference(x0, t, rtol=1e-10)
    # exp(tA) of [[-1, c], [0, -2]] in closed form.
    x1 = np.exp(-t) * x0[:, :1] + 3.2 * (np.exp(-t) - np.exp(-2 * t)) * x0[:, 1:]
    assert np.abs(states[:, :, 0] - x1).max() < 1e-8
    assert np.abs(states[:, :, 1] - np.exp(-2 * t) * x0[:, 1:]).max() < 1e-8


def test_unknown_system_and_option_are_named():
    with pytest.raises(InvalidInput, match="one of kuramoto_sivashinsky, robertson"):
        systems.get("lorenz")
    with pytest.raises(InvalidInput, match="options of robertson"):
        systems.generate("robertson", 3, speed=2)
    with pytest.raises(InvalidInput, match="at least 2"):
        systems.generate("robertson", 1)
