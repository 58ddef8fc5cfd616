"""UM-Bridge's client and the samplers that stand on it, unmodified: the examples."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.api.deployment import ROOT
from tests.core.models import random_states
from tests.protocols.environments import FOLDER, run_client

EXAMPLES = ROOT / "docs" / "examples"
T1 = 2.5
# No compiler is asked for what these small models need.
QUICK = {"PYTENSOR_FLAGS": "cxx="}


@pytest.fixture(scope="module")
def example(service):
    """Runs an example; its estimates by name."""
    variables = {"SPNODE_URL": service.url, "SPNODE_KEY": service.key}

    def run(environment, name, *arguments):
        program = EXAMPLES / f"{name}.py"
        said = run_client(environment, program, *arguments, **variables, **QUICK)
        number = r"(-?[\d.e-]+)"
        lines = re.findall(rf"(\w+): {number} ± {number}, true {number}", said)
        return {each[0]: tuple(map(float, each[1:])) for each in lines}, said

    return run


def test_the_client_has_all_of_the_model(service):
    given = [random_states(1, seed=4)[0].tolist(), [1.2, 0.8]]
    config = {"t1": T1, "precision": "float64"}
    said = run_client(
        "clients",
        FOLDER / "programs" / "umbridge_model.py",
        "kinetics@latest",
        json.dumps(config),
        json.dumps(given),
        URL=f"{service.signed}/umbridge",
    )
    found = json.loads(said.splitlines()[-1])
    surrogate = service.surrogates["kinetics"]
    x0, parameters = map(jnp.array, given)
    sens, vec = jnp.array([0.3, -2.0, 1.1]), jnp.array([0.2, -0.5])

    def states(parameters):
        return surrogate.rollout(x0, np.array([T1]), parameters=parameters)[0]

    def weighted(parameters):
        return sens @ states(parameters)

    expected = {
        "output": [states(parameters)],
        "gradient": jax.grad(weighted)(parameters),
        "jacobian": jax.jvp(states, (parameters,), (vec,))[1],
        "hessian": jax.hessian(weighted)(parameters) @ vec,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(
            found[name], value, rtol=1e-10, atol=1e-10 * abs(np.array(value)).max()
        )
    assert found["supported"] == [True] * 4
    assert (found["input_sizes"], found["output_sizes"]) == ([3, 2], [3])
    assert found["all_equal"]
    assert found["falls_back_to_http"] == found["output"]
    assert "InvalidInput: input: found 1 vectors; expected 2" in found["refusal"]
    assert "not supported by server" in found["unknown"]


def test_pymc_and_emcee_find_the_same_posterior(example):
    by_pymc, _ = example("clients", "sample_umbridge_pymc", "plain@latest", 80)
    by_emcee, _ = example("clients", "sample_umbridge_emcee", "plain@latest", 40)
    for name in ("y1", "y3"):
        mean, std, true = by_pymc[name]
        assert 0 < std < 0.02
        assert abs(mean - true) < 4 * std
        # Some 30 independent draws of each: 0.26 std between their means.
        other, width, _ = by_emcee[name]
        assert abs(mean - other) < 0.8 * std
        assert 0.5 < width / std < 2.0


def test_tinyda_takes_the_surrogate_as_its_coarse_level(example):
    found, said = example("tinyda", "multilevel_tinyda", "plain@latest", 60)
    accepted = float(re.search(r"fine level: ([\d.]+)", said)[1])
    assert 0.1 < accepted <= 1.0
    for mean, std, true in found.values():
        assert abs(mean - true) < 5 * std


def test_the_example_of_the_document_runs(service, tmp_path):
    document = (ROOT / "docs" / "doors" / "umbridge.md").read_text()
    program = tmp_path / "example.py"
    program.write_text(re.search(r"```python[^\n]*\n(.*?)```", document, re.S)[1])
    said = run_client(
        "clients", program, SPNODE_URL=service.url, SPNODE_KEY=service.key
    )
    sizes, output, gradient = said.splitlines()
    assert sizes == "[3] [3]"
    assert np.shape(json.loads(output)) == (1, 3)
    assert np.shape(json.loads(gradient)) == (3,)
