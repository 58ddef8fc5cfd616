"""A model with parameters, what the door of Tesseract is asked of it, and closeness."""

import numpy as np

from tests.core.models import random_states

MODEL = "kinetics"
TIMES = np.array([0.5, 1.0])
X0, PARAMETERS = random_states(2, seed=4), np.array([1.1, 0.8])
SCALE = np.array([1.0, 4e-5, 1.1])
_DRAWS = np.random.default_rng(7)
GIVEN = {
    "x0": X0,
    "parameters": PARAMETERS,
    "times": TIMES,
    "tangent_x0": _DRAWS.normal(size=X0.shape) * SCALE,
    "tangent_parameters": _DRAWS.normal(size=2),
    "cotangent": _DRAWS.normal(size=(2, 2, 3)) / SCALE,
}
BODY = {"x0": X0.tolist(), "parameters": PARAMETERS.tolist(), "times": TIMES.tolist()}


def close(found, expected, sizes=1.0):
    """Equal to 1e-10 of the largest number, after scaling by the sizes of the axes."""
    found, expected = np.asarray(found) * sizes, np.asarray(expected) * sizes
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-10 * np.abs(expected).max()
