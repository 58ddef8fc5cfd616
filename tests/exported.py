"""Hosts of exports that have none of our code: another process, and XLA's own client."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jaxlib.xla_client as xla
import numpy as np
from jax.extend.backend import get_backend

EXAMPLE = Path(__file__).parent.parent / "docs/examples/run_export.py"
# None in sys.modules makes an import fail.
WITHOUT_OURS = """
import runpy, sys
sys.modules.update(dict.fromkeys(
    ("spnode_core", "spnode_client", "services", "equinox", "jaxtyping", "pydantic")))
program, *sys.argv[1:] = sys.argv[1:]
runpy.run_path(program, run_name="__main__")
"""


def run_elsewhere(folder, inputs, tmp_path):
    """What the example of a Python host computes, where our packages are not."""
    np.savez(tmp_path / "inputs.npz", **inputs)
    environment = {k: v for k, v in os.environ.items() if k != "JAX_ENABLE_X64"}
    command = [
        *(sys.executable, "-c", WITHOUT_OURS, EXAMPLE),
        *(folder, tmp_path / "inputs.npz", tmp_path / "x.npy"),
    ]
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={
            **environment,
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        },
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return np.load(tmp_path / "x.npy")


def run_by_xla(module, *inputs):
    """What XLA computes from the bytes of a module, without tracing or Python code."""
    client = get_backend("cpu")
    device = client.local_devices()[0]
    program = client.compile_and_load(
        module, xla.DeviceList((device,)), xla.CompileOptions()
    )
    given = [jax.device_put(np.asarray(each), device) for each in inputs]
    results = program.execute_sharded(given).disassemble_into_single_device_arrays()
    return np.asarray(results[0][0])
