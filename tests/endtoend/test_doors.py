"""The doors of others' protocols before a model that a job has trained."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spnode_core.surrogate import cast_networks
from tests.endtoend.conftest import ROOT
from tests.protocols.doors import through_each_door
from tests.protocols.environments import run_client
from tests.protocols.kinetics import close

TIMES = np.array([0.1, 10.0, 1000.0])
X0 = np.array([0.95, 5e-7, 0.05])
SCALE = np.array([1.0, 3.65e-5, 1.0])
SAMPLES = 60
WEIGHTS = np.random.default_rng(8).normal(size=(3, 3)) / SCALE


@pytest.fixture
def key(shell):
    return (shell.data / "key").read_text().strip()


def test_every_door_computes_as_this_process_does(shell, model, key):
    with shell.client() as client:
        version, local = client.models.version(model), client.models.load(model)
        assert version.record["job_id"]
        url = client.url
    found = through_each_door(url, key, str(version), TIMES, WEIGHTS, x0=X0)
    exact = cast_networks(local, jnp.float64)
    x, pulled = jax.vjp(lambda x0: exact.rollout(x0, TIMES), jnp.asarray(X0))
    (gradient,) = pulled(jnp.asarray(WEIGHTS))
    for each in found.values():
        close(each["x"], x, 1 / SCALE)
    for door in ("umbridge", "tesseract"):
        close(found[door]["x0"], gradient, SCALE)


def test_a_stiff_solver_decides_what_the_surrogate_proposes(
    shell, model, key, tmp_path
):
    """Where the model has this name, the example of tinyDA solves the equations too."""
    path = tmp_path / "robertson.spnode"
    with shell.client() as client:
        client.models.register(client.models.download(model, path), "robertson")
        url = client.url
    said = run_client(
        "tinyda",
        ROOT / "docs" / "examples" / "multilevel_tinyda.py",
        "robertson@latest",
        SAMPLES,
        SPNODE_URL=url,
        SPNODE_KEY=key,
    )
    number = r"(-?[\d.e-]+)"
    lines = re.findall(rf"(\w+): {number} ± {number}, true {number}", said)
    assert [name for name, *_ in lines] == ["y1", "y3"]
    for _, mean, _, true in lines:
        # The noise of an observation: the posterior is some seven times narrower.
        assert abs(float(mean) - float(true)) < 0.02
    # Each accepted step is at least one solution of the equations.
    accepted = float(re.search(rf"fine level: {number}", said)[1])
    assert accepted * 0.75 * SAMPLES > 2
