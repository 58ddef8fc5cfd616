"""An export of a served version gives what the service gives, without our code."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from spnode_client import Client
from tests.api.deployment import clean_environment
from tests.api.differentiable import SWITCHES
from tests.core.models import random_states
from tests.exported import run_by_xla, run_elsewhere

TIMES = np.array([0.0, 2e-3, 0.3, 1.0, 40.0])
# Tiles and constants are compiled differently: last bits, of float32 where networks
# have it, times what steps and the decoder make of them.
TOLERANCE = {"mixed": 1e-5, "forced": 1e-12}


@pytest.fixture(scope="module")
def by_client(deployment):
    # Tests compile far more than they compute.
    jax.config.update("jax_disable_most_optimizations", True)
    with Client(deployment.url, deployment.key) as client:
        yield client


def inputs_of(model, rows):
    if model == "mixed":
        return {"x0": random_states(rows, seed=8)}
    draws = np.random.default_rng(9)
    return {
        "x0": random_states(rows, seed=8),
        "parameters": draws.uniform(0.5, 2.0, (rows, 1)),
        "controls": draws.uniform(-1, 1, (rows, 2, 2)),
    }


@pytest.mark.parametrize(("model", "rows"), [("mixed", 45), ("forced", 1)])
def test_a_host_without_our_code_repeats_the_services_rollout(
    by_client, tmp_path, model, rows
):
    switches = SWITCHES if model == "forced" else None
    folder = tmp_path / "export"
    made = by_client.models.export(
        model, folder, TIMES, control_times=switches, rows=(32,)
    )
    assert made["origin"]["digest"] == by_client.models.version(model).digest
    more = {} if switches is None else {"control_times": switches}
    tolerance = TOLERANCE[model]

    def served(given):
        return by_client.rollout(model, times=TIMES, **given, **more)

    given = inputs_of(model, rows)
    found = run_elsewhere(folder, given, tmp_path)
    np.testing.assert_allclose(found, served(given), rtol=tolerance, atol=tolerance)
    given = inputs_of(model, 32)
    module = (folder / "rollout-32.mlirbc").read_bytes()
    found = run_by_xla(module, *given.values())
    np.testing.assert_allclose(found, served(given), rtol=tolerance, atol=tolerance)


def test_the_command_line_exports_a_version(deployment, tmp_path):
    code = "from spnode_client.cli import main; main()"
    options = ["--url", deployment.url, "--key", deployment.key]
    export = ["models", "export", "small", "--stablehlo", "--to", tmp_path / "made"]
    chosen = ["--times", "log:1e-2:1e2:5", "--rows", "4", "--json"]
    done = subprocess.run(
        list(map(str, [sys.executable, "-c", code, *options, *export, *chosen])),
        capture_output=True,
        text=True,
        env={**clean_environment(), "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    written = json.loads((tmp_path / "made" / "export.json").read_text())
    assert made == {"path": str(tmp_path / "made"), **written}
    assert made["rows"] == [4]
    assert made["origin"]["model"] == "small"
    np.testing.assert_allclose(made["times"], [0.01, 0.1, 1, 10, 100])
