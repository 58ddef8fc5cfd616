"""Built-in systems solved by a process of their own: same numbers, within limits."""

import json

import numpy as np
import pytest

from services import references
from services.errors import Invalid, NotFound
from services.references import solve
from services.settings import Settings
from spnode_core import systems

START = [0.95, 1e-7, 0.05]
FIELD = np.sin(2 * np.pi * np.arange(64) / 64).tolist()


@pytest.mark.parametrize(
    ("name", "x0", "times"),
    [
        ("robertson", START, [0.0, 1e-3, 40.0]),
        ("robertson", START, [1e-5, 1e5]),
        ("transient_growth", [0.5, -1.0], [0.0, 0.3]),
        ("kuramoto_sivashinsky", FIELD, [2.0, 5.0]),
    ],
)
def test_the_solution_is_that_of_the_system(settings: Settings, name, x0, times):
    found = json.loads(solve(name, x0, np.array(times), settings))
    assert found["times"] == times
    grid = np.union1d([0.0], times)
    expected = systems.get(name).reference(np.array([x0]), grid)[0, -len(times) :]
    # Other roundings lead LSODA over other steps, within its tolerance.
    np.testing.assert_allclose(found["x"], expected, rtol=1e-6, atol=1e-12)
    if times[0] == 0:
        np.testing.assert_allclose(found["x"][0], x0, atol=1e-15)


def test_at_the_beginning_it_is_the_start(settings: Settings):
    found = json.loads(solve("transient_growth", [0.5, -1.0], np.zeros(1), settings))
    assert found == {"times": [0.0], "x": [[0.5, -1.0]]}


def test_what_is_no_start_of_a_system_is_refused(settings: Settings):
    with pytest.raises(NotFound, match="/v1/systems"):
        solve("nothing", START, np.ones(1), settings)
    with pytest.raises(Invalid, match=r"found 2 numbers; expected 3, of robertson"):
        solve("robertson", START[:2], np.ones(1), settings)
    with pytest.raises(Invalid, match=r"/times: .*15625 times") as refused:
        solve("kuramoto_sivashinsky", FIELD, np.arange(20_000.0), settings)
    assert refused.value.field == "/times"


@pytest.mark.parametrize(
    ("name", "x0"),
    [
        ("transient_growth", [1e3, 1e3]),
        ("robertson", [1e300, -1e300, 1e300]),
        ("kuramoto_sivashinsky", (1e200 * np.array(FIELD)).tolist()),
    ],
)
def test_a_start_without_a_solution_says_so(settings: Settings, name, x0):
    with pytest.raises(Invalid, match="/x0: found a start from which the solver"):
        solve(name, x0, np.array([1.0]), settings)


def test_a_long_solution_is_ended(settings: Settings, monkeypatch):
    monkeypatch.setattr(references, "MOST_SECONDS", 2)
    with pytest.raises(Invalid, match="/times: found a solution that takes more than"):
        solve("kuramoto_sivashinsky", FIELD, np.array([1e9]), settings)


def test_its_memory_is_limited(settings: Settings):
    small = settings.model_copy(update={"parser_memory_bytes": 16 * 2**20})
    with pytest.raises(Invalid, match="/x0: found a start that ended the process"):
        solve("robertson", START, np.array([1.0]), small)
