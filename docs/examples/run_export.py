"""Runs an export with JAX and NumPy alone: run_export.py FOLDER INPUTS.npz X.npy."""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from jax import export

jax.config.update("jax_enable_x64", True)
folder, inputs, output = map(Path, sys.argv[1:])
description = json.loads((folder / "export.json").read_text())
rollout = export.deserialize(bytearray((folder / "rollout.jax").read_bytes()))


def run(given):
    """States by row, time and state, from inputs by name, each with a row axis."""
    return np.asarray(
        rollout.call(*(given[each["name"]] for each in description["inputs"]))
    )


probe = {k: np.array(v) for k, v in description["probe"]["inputs"].items()}
np.testing.assert_allclose(run(probe)[:, -1], description["probe"]["last"], rtol=1e-4)
np.save(output, run(np.load(inputs)))
