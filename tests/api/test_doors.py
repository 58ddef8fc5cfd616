"""The doors of others' protocols before both executors."""

import jax
import numpy as np

from tests.core.models import random_states
from tests.protocols.doors import through_each_door

TIMES = np.array([0.5, 70.0])
GIVEN = {
    "x0": random_states(1, seed=9)[0],
    "parameters": np.array([1.2]),
    "controls": np.array([[0.3, -0.4], [0.1, 0.6]]),
    "control_times": np.array([0.0, 2.0]),
}
WEIGHTS = np.random.default_rng(8).normal(size=(2, 3))


def test_every_door_has_the_same_bits_from_a_worker(deployment, queue_deployment):
    here, there = (
        through_each_door(each.url, each.key, "forced/1", TIMES, WEIGHTS, **GIVEN)
        for each in (deployment, queue_deployment)
    )
    jax.tree.map(np.testing.assert_array_equal, there, here)
    for found in here.values():
        np.testing.assert_array_equal(found["x"], here["umbridge"]["x"])
    for name in ("x0", "parameters", "controls"):
        gradient = here["umbridge"][name]
        assert np.abs(gradient).max() > 0
        np.testing.assert_array_equal(here["tesseract"][name], gradient)
