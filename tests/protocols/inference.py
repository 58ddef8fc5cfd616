"""Requests for inference, in the form of the Open Inference Protocol."""

import numpy as np

from tests.core.models import random_states

TIMES = np.array([2e-3, 0.4, 3.0])
ROWS = 5
GIVEN = {
    "x0": random_states(ROWS, seed=4),
    "times": TIMES,
    "parameters": np.random.default_rng(1).uniform(0.5, 2.0, (ROWS, 2)),
    "controls": np.random.default_rng(2).uniform(-1, 1, (ROWS, 2, 2)),
    "control_times": np.array([0.0, 0.5]),
}

TAKES = {
    "plain": (),
    "kinetics": ("parameters",),
    "forced": ("parameters", "controls", "control_times"),
    "unsure": (),
    "many": (),
}
"""What each model takes beside x0 and times; the last two are ``unsure_models``."""


def taken(model):
    """The inputs of a model."""
    found = [tensor(name) for name in ("x0", *TAKES[model], "times")]
    if model == "forced":
        # One parameter, not two.
        found[1] |= {"shape": [1, 1], "data": [1.2]}
    return found


def tensor(name, **fields):
    array = GIVEN[name]
    usual = {"name": name, "shape": list(array.shape), "datatype": "FP64"}
    return usual | {"data": array.tolist()} | fields


def body(*inputs, **fields):
    return {"inputs": list(inputs) or [tensor("x0"), tensor("times")], **fields}
