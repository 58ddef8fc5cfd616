"""Data-parallel training: minibatches over several devices, in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = """
import json
import sys
import jax
jax.config.update("jax_enable_x64", True)
import equinox as eqx
import numpy as np
from spnode_core.spec import TrainingSpec
from spnode_core.training.devices import over_devices
from spnode_core.training.fit import fit
from tests.core.test_fit import BRIEF, SMALL, decay

compiled = sys.argv[1]
jax.config.update("jax_compilation_cache_dir", compiled)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
rows = jax.jit(lambda x: over_devices(2 * x, 6))(np.arange(12.0).reshape(6, 2))
pieces = sorted((each.index[0].start or 0, each.data.shape) for each in rows.addressable_shards)
odd = jax.jit(lambda x: over_devices(2 * x, 5))(np.arange(5.0))
found = {"pieces": pieces, "odd": len(odd.sharding.device_set)}
brief = BRIEF.model_copy(update={"iterations": 6, "polish": "none"})
for _ in range(2):
    run = fit(decay(), SMALL, brief, seed=3)
    leaves = jax.tree.leaves(eqx.filter(run.surrogate, eqx.is_inexact_array))
    assert all(len(x.devices()) == 1 for x in leaves if isinstance(x, jax.Array))
    parameters = np.concatenate([np.ravel(x) for x in leaves]).tolist()
    assert found.setdefault("parameters", parameters) == parameters
print(json.dumps(found))
"""


def found_on(devices: int, folder: Path) -> dict:
    """What the script finds in a process with so many devices."""
    flags = (
        f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    )
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, folder],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def on_two(tmp_path_factory):
    return found_on(2, tmp_path_factory.mktemp("compiled"))


def test_rows_are_laid_over_as_many_devices_as_divide_them(on_two) -> None:
    assert on_two["pieces"] == [[0, [3, 2]], [3, [3, 2]]]
    assert on_two["odd"] == 1


def test_two_devices_train_what_one_does(on_two, tmp_path) -> None:
    """The script trains twice and finds the same bits; networks are in float32."""
    one, two = (
        np.array(found["parameters"]) for found in (found_on(1, tmp_path), on_two)
    )
    np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-6)
    assert not np.array_equal(two, one), "sums were taken in the same order"
