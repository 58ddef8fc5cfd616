"""Three small models, one an integrator, and requests for their derivatives."""

import numpy as np

from spnode_core.spec import LipschitzSpec, ModalSpec, RatesSpec, UniformStepsSpec
from tests.api.deployment import LINEAR
from tests.core.models import random_states, small_surrogate

TIMES = np.array([0.3, 1.7, 3.0])
SCALE = np.array([1.0, 4e-5, 1.1])
# x0 a row each, the parameter shared, controls a row each: 3 + 1 + 4 numbers a row.
ROWS = 2
GIVEN = {
    "x0": random_states(ROWS, seed=11),
    "parameters": np.array([1.3]),
    "controls": np.random.default_rng(2).uniform(-1, 1, (ROWS, 2, 2)),
}
SIZES = {"x0": SCALE, "parameters": np.ones(1), "controls": np.ones((2, 2))}
SWITCHES = np.array([0.0, 0.5])
EXACT = {"precision": "float64", "mode": "throughput"}
UNIFORM = {
    "linear": ModalSpec(rates=RatesSpec(minimum=0.5, maximum=20.0)),
    "nonlinear": LipschitzSpec(bound=0.3),
    "steps": UniformStepsSpec(step=0.25),
}
INTEGRATORS = {
    "etd1": {},
    "etd2rk": {**UNIFORM, "integrator": "etd2rk"},
    "krogstad": {**UNIFORM, "integrator": "krogstad"},
}


def surrogate(name):
    """A model with networks in float32, one parameter and two controls."""
    return small_surrogate(
        parameters=1,
        controls=2,
        seed=5,
        precision="mixed",
        normalisation=LINEAR,
        **INTEGRATORS[name],
    )


def options(**more):
    rest = {name: value for name, value in GIVEN.items() if name != "x0"}
    return {**rest, "control_times": SWITCHES, **EXACT, **more}


def directions(k, seed):
    draws = np.random.default_rng(seed)
    return {
        name: draws.normal(size=(k, *value.shape)) * SIZES[name]
        for name, value in GIVEN.items()
    }
