"""Loops of others' packages around a model in the service: the examples, as they are."""

import re

import pytest

from tests.protocols.environments import ROOT, run_client

EXAMPLES = ROOT / "docs" / "examples"
MODEL = "plain"
NUMBER = r"(-?[\d.e+-]*\d)"


@pytest.fixture
def said(service):
    """Runs an example; what it printed."""

    def run(name, *arguments):
        return run_client(
            "clients",
            EXAMPLES / f"{name}.py",
            f"{MODEL}@latest",
            *arguments,
            SPNODE_URL=service.url,
            SPNODE_KEY=service.key,
            # No compiler is asked for what these small models need.
            PYTENSOR_FLAGS="cxx=",
        )

    return run


@pytest.fixture
def requests(client):
    """How many rollouts, and rows of them, the service has computed of the model."""

    def count():
        answer = client.get(f"/v2/models/{MODEL}/versions/1/stats").json()
        (found,) = answer["model_stats"]
        asked = found["inference_stats"]["success"]["count"]
        return asked, found["inference_count"]

    return count


def starts(printed):
    """What an example found of the initial condition, by name, and the truth."""
    lines = re.findall(rf"(\w+) at .*: found {NUMBER}, true {NUMBER}", printed)
    found = {name: (float(value), float(true)) for name, value, true in lines}
    assert set(found) == {"y1", "y3"}, printed
    return found


def test_a_generation_of_cma_is_one_request(said, requests):
    before = requests()
    printed = said("optimise_cma")
    asked, rows = (b - a for a, b in zip(before, requests(), strict=True))
    rollouts, generations = map(
        int, re.search(r"(\d+) rollouts in (\d+) requests", printed).groups()
    )
    # Beside one for the observations.
    assert (asked, rows) == (generations + 1, rollouts + 1)
    assert rollouts == 32 * generations
    for found, true in starts(printed).values():
        assert abs(found - true) < 2e-3


def test_openmdao_drives_a_component_with_exact_partials(said):
    printed = said("openmdao_component")
    (error,) = re.findall(rf"differences by {NUMBER} of", printed)
    assert float(error) < 1e-6
    found = starts(printed)
    for value, true in found.values():
        assert abs(value - true) < 2e-3
    # The constraint: that the states still add up.
    assert abs(found["y1"][0] + found["y3"][0] - 1) < 2e-4


def test_nuts_of_pymc_finds_the_initial_condition(said):
    printed = said("sample_pymc", 25)
    lines = re.findall(rf"(y\d): {NUMBER} ± {NUMBER}, true {NUMBER}", printed)
    assert [name for name, *_ in lines] == ["y1", "y3"]
    for _, *numbers in lines:
        mean, deviation, true = map(float, numbers)
        assert 0 < deviation < 0.02
        assert abs(mean - true) < 5 * deviation
