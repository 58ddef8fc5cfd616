"""A model in the service as a torch function, in torch's own environment.

The build of torch for processors alone is 190 MB; where pip is told of none, only the one
with CUDA can be had, which with what it needs is 3 GB: that is for ``test --all``.
"""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spnode_core.surrogate import cast_networks
from tests.protocols.environments import (
    FOLDER,
    ROOT,
    is_small_torch_at_hand,
    run_client,
)
from tests.protocols.kinetics import GIVEN, MODEL, PARAMETERS, SCALE, TIMES, X0, close
from tests.protocols.pages import run_page_block

pytestmark = [
    pytest.mark.timeout(900),
    *([] if is_small_torch_at_hand() else [pytest.mark.slow]),
]

# Of the model with controls, beside what both models are given.
DRIVEN = {
    "parameter": np.array([1.2]),
    "controls": np.random.default_rng(5).uniform(-1, 1, (2, 2, 2)),
    "control_times": np.array([0.0, 0.6]),
}


@pytest.fixture
def run(service):
    """Runs a program where torch is; what it printed."""
    variables = {"SPNODE_URL": service.url, "SPNODE_KEY": service.key}

    def run(program, *arguments):
        return run_client("torch", program, *arguments, **variables)

    return run


def test_torch_differentiates_twice_as_this_process_does(service, run, tmp_path):
    given, found = tmp_path / "given.npz", tmp_path / "found.npz"
    np.savez(given, **GIVEN, **DRIVEN)
    program = FOLDER / "programs" / "torch_derivatives.py"
    run(program, f"{MODEL}/1", "forced/1", given, found)
    with np.load(found) as members:
        found = dict(members)
    model = service.surrogates[MODEL]
    args = jnp.asarray(X0), jnp.asarray(PARAMETERS)

    def rollout(x0, k):
        return model.rollout(x0, TIMES, parameters=k)

    def total(x0, k):
        return jnp.sum(GIVEN["cotangent"] * jnp.sin(rollout(x0, k)))

    tangents = GIVEN["tangent_x0"], GIVEN["tangent_parameters"]
    x, moved = jax.jvp(rollout, args, tuple(map(jnp.asarray, tangents)))
    by_x0, by_k = jax.grad(total, (0, 1))(*args)
    second = jax.jacfwd(jax.grad(total, 1), (0, 1))(*args)
    close(found["x"], x, 1 / SCALE)
    close(found["jvp"], moved, 1 / SCALE)
    close(found["by_x0"], by_x0, SCALE)
    close(found["by_parameters"], by_k)
    close(found["mixed"], second[0], SCALE)
    close(found["hessian"], second[1])
    np.testing.assert_allclose(found["single"], x, rtol=1e-5, atol=1e-9)

    exact = cast_networks(service.surrogates["forced"], jnp.float64)

    def driven(x0, parameter, controls):
        given = {"parameters": parameter, "controls": controls}
        return exact.rollout(x0, TIMES, **given, control_times=DRIVEN["control_times"])

    args = X0, DRIVEN["parameter"], DRIVEN["controls"]
    x, pulled = jax.vjp(driven, *map(jnp.asarray, args))
    close(found["driven"], x, 1 / SCALE)
    gradients = pulled(jnp.asarray(GIVEN["cotangent"]))
    for name, each in zip(("x0", "parameter", "controls"), gradients, strict=True):
        close(found[f"driven_{name}"], each, SCALE if name == "x0" else 1.0)


def test_a_torch_module_is_trained_through_the_service(run):
    printed = run(ROOT / "docs" / "examples" / "train_torch.py", "plain@latest")
    first, last = map(float, re.search(r"misfit (\S+) -> (\S+)", printed).groups())
    assert last < 1.5 < 100 < first, printed
    assert float(re.search(r"the law is (\S+) off", printed)[1]) < 4e-3


def test_the_block_of_the_page_runs(service, tmp_path):
    before = f"""import os
import numpy as np
from spnode_client import Client
client = Client(os.environ["SPNODE_URL"], os.environ["SPNODE_KEY"], timeout_s=280)
model = client.model("{MODEL}/1")
x0, k = np.array({X0.tolist()}), np.array({PARAMETERS.tolist()})
times = {TIMES.tolist()}"""
    said = run_page_block(
        "torch",
        "functions.md",
        __file__,
        {},
        folder=tmp_path,
        before=before,
        after="print(x.tolist())",
        SPNODE_URL=service.url,
        SPNODE_KEY=service.key,
    )
    model = service.surrogates[MODEL]
    expected = np.asarray(model.rollout(X0, TIMES, parameters=PARAMETERS)) / SCALE
    found = np.array(json.loads(said)) / SCALE
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
