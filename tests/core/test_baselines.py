"""Trivial models: exact where they should be, and never wild."""

import numpy as np
import pytest

from spnode_core.baselines import Baselines, normalised
from spnode_core.dataset import check_arrays
from spnode_core.normaliser import Normaliser, fit_scaling
from spnode_core.spec import UniformStepsSpec
from spnode_core.timegrid import TimeGrid

MATRIX = np.array([[-0.6, 2.0, 0.0], [-2.0, -0.6, 0.3], [0.0, 0.0, -0.1]])


def linear_system(rows, times, seed, *, control=False):
    """``x' = A x + p + u`` by its exact steps, ``u`` held between samples."""
    draws = np.random.default_rng(seed)
    parameters = draws.uniform(-1, 1, (rows, 1))
    controls = draws.uniform(-1, 1, (rows, len(times), 1)) * control
    x = [draws.uniform(-1, 1, (rows, 3))]
    for k, step in enumerate(np.diff(times)):
        propagator = np.linalg.matrix_power(np.eye(3) + MATRIX * step / 4096, 4096)
        gain = np.linalg.solve(MATRIX, propagator - np.eye(3)) @ np.ones(3)
        x.append(x[-1] @ propagator.T + (parameters + controls[:, k]) * gain)
    arrays = {"states": np.stack(x, axis=1), "times": times, "parameters": parameters}
    if control:
        arrays |= {"controls": controls, "control_names": np.array(["u"])}
    return arrays


def errors(training, dataset):
    times = training.times[0]
    grid = TimeGrid(times - times[0])
    normaliser = Normaliser(
        states=fit_scaling(training.states),
        sums=fit_scaling(np.zeros((1, 0))),
        parameters=fit_scaling(training.parameters),
        controls=fit_scaling(training.controls),
    )
    first = dataset.states[:, :1]
    truth = normalised(normaliser.states, np.where(dataset.mask, dataset.states, first))
    found = Baselines(normaliser, grid, training).predict(dataset)
    return {
        name: float(np.abs(np.where(dataset.mask, states - truth, 0.0)).max())
        for name, states in found.items()
    }


@pytest.mark.parametrize("control", [False, True])
def test_a_linear_model_predicts_a_linear_system_exactly(control):
    times = np.linspace(0.0, 3.0, 16)
    made = (linear_system(rows, times, rows, control=control) for rows in (30, 8))
    found = errors(*map(check_arrays, made))
    assert found["linear_dmd"] < 1e-8
    assert found["constant"] > 0.1
    assert found["nearest_trajectory"] > 0.1


def test_a_trajectory_that_is_known_is_its_own_nearest_at_any_times():
    arrays = linear_system(12, np.linspace(0.0, 3.0, 301), 0)
    training = check_arrays(arrays)
    fewer = {"states": arrays["states"][4:6, ::37], "times": training.times[0, ::37]}
    held_out = check_arrays(fewer | {"parameters": arrays["parameters"][4:6]})
    assert errors(training, held_out)["nearest_trajectory"] < 1e-12


def test_gaps_and_different_lengths_do_not_mislead_a_linear_model():
    arrays = linear_system(30, np.linspace(0.0, 3.0, 61), 0)
    mask = np.random.default_rng(1).uniform(size=arrays["states"].shape) > 0.1
    mask[:, 0] = True
    mask[:10, 40:] = False
    training = check_arrays(arrays | {"mask": mask})
    held_out = check_arrays(linear_system(8, np.linspace(0.0, 3.0, 61), 3))
    # Interpolation over a gap errs by some 1e-3; a start held for ever errs by 1.
    assert errors(training, held_out)["linear_dmd"] < 0.02


def test_growth_beyond_the_training_data_is_stopped():
    times = np.append(0.0, np.geomspace(1e-3, 1e3, 25))
    draws = np.random.default_rng(0)
    grows = draws.uniform(0.5, 1.5, (20, 1)) * np.log1p(times) ** 3
    states = np.stack([grows, draws.normal(size=grows.shape), 0 * grows + 2], axis=-1)
    training = check_arrays({"states": states[:15], "times": times})
    held_out = check_arrays({"states": states[15:], "times": times})
    # Training data lie in [-1, 1], and predictions are kept within [-2, 2].
    assert errors(training, held_out)["linear_dmd"] < 4


def test_trajectories_far_longer_than_those_learned_from_are_predicted():
    short = check_arrays(linear_system(4, np.linspace(0.0, 1e-3, 5), 0))
    long = check_arrays(linear_system(3, np.linspace(0.0, 3.0, 16), 1))
    grid = TimeGrid.from_spec(UniformStepsSpec(step=1.0))
    normaliser = Normaliser(
        states=fit_scaling(short.states),
        sums=fit_scaling(np.zeros((1, 0))),
        parameters=fit_scaling(short.parameters),
        controls=fit_scaling(short.controls),
    )
    for asked in (short, long):
        found = Baselines(normaliser, grid, short).predict(asked)
        assert all(np.isfinite(each).all() for each in found.values())


def test_numbers_too_small_for_compiled_code_have_a_logarithm():
    times = np.linspace(0.0, 744.0, 50)
    (scaling,) = [fit_scaling(np.exp(-times)[:, None], ["log"])]
    found = normalised(scaling, np.exp(-times)[:, None])
    assert np.isfinite(found).all()
    assert np.abs(found).max() <= 1.0
    pulses = np.where(np.arange(50) % 10 == 0, 30.0, 0.0)[:, None]
    found = normalised(fit_scaling(pulses, ["asinh"]), pulses)
    np.testing.assert_allclose(found, np.where(pulses > 0, 1.0, -1.0))
