"""A version that was asked for once: its calls, awaited too, and its labelled rollouts."""

import asyncio

import jax
import numpy as np
import pytest
import xarray as xr

from spnode_client import AsyncClient, AsyncModel, Client
from spnode_core import as_xarray
from spnode_core.errors import InvalidInput
from tests.core.models import random_states

jax.config.update("jax_enable_x64", True)

TIMES = np.array([0.3, 1.7, 3.0])
X0 = random_states(4, seed=3)
K = np.array([1.3, 0.8])
# Time for what compiles.
PATIENT = {"request-timeout": "280"}
WEIGHTS = np.random.default_rng(0).normal(size=(4, 3, 3))


@pytest.fixture(scope="module")
def model(service):
    with Client(service.url, service.key, timeout_s=280, retries=0) as client:
        client.transport.http.headers.update(PATIENT)
        yield client.model("kinetics@latest")


def calls(model):
    """All that a version is asked for, values or what can be awaited."""
    given = (X0, TIMES)
    along = {"x0": np.ones_like(X0)}
    misfit = {"kind": "misfit", "observations": np.zeros((4, 3, 3))}
    return {
        "rollout": model.rollout(*given, parameters=K),
        "jvp": model.jvp(*given, along, parameters=K),
        "vjp": model.vjp(*given, WEIGHTS, parameters=K),
        "hvp": model.hvp(*given, WEIGHTS, along, parameters=K),
        "jacobian": model.jacobian(*given, ["parameters"], parameters=K),
        "objective": model.objective(*given, misfit, parameters=K),
        "as_xarray": model.as_xarray(*given, parameters=K),
    }


def test_awaited_calls_are_those_of_the_blocking_client(service, model):
    async def awaited():
        async with AsyncClient(
            service.url, service.key, timeout_s=280, retries=0
        ) as client:
            client.transport.http.headers.update(PATIENT)
            same = await client.model("kinetics@latest")
            assert isinstance(same, AsyncModel)
            assert (same.reference, same.states) == ("kinetics/1", model.states)
            assert repr(same) == f"AsyncModel('kinetics/1', {service.url!r})"
            pending = calls(same)
            done = await asyncio.gather(*pending.values())
            return dict(zip(pending, done, strict=True))

    found = asyncio.run(awaited())
    for name, value in calls(model).items():
        if name == "as_xarray":
            xr.testing.assert_identical(found[name], value)
        else:
            jax.tree.map(np.testing.assert_array_equal, found[name], value)


def test_axes_have_names_there_and_here(service, model):
    found = model.as_xarray(X0, TIMES, parameters=K, precision="float64")
    assert found.x.dims == ("row", "time", "state")
    assert list(found.state.values) == ["a", "b", "c"]
    assert (found.model, found.version) == ("kinetics", 1)
    here = as_xarray(service.surrogates["kinetics"], X0, TIMES, parameters=K)
    assert here.x.dims == found.x.dims
    xr.testing.assert_allclose(here, found.drop_attrs(), rtol=1e-10)
    one = model.as_xarray(X0[1], TIMES, parameters=K, outputs={"states": ["c", "a"]})
    assert one.x.dims == ("time", "state")
    # Alone or among others, a row has the same bits.
    same = model.as_xarray(X0, TIMES, parameters=K)
    np.testing.assert_array_equal(one.x.sel(state="a"), same.x.sel(row=1, state="a"))
    last = model.as_xarray(X0[1], TIMES, parameters=K, outputs={"times": "final"})
    assert last.x.dims == ("state",)
    np.testing.assert_array_equal(last.x, same.x[1, -1])
    alone = as_xarray(service.surrogates["kinetics"], X0[1], TIMES, parameters=K)
    assert alone.x.dims == ("time", "state")
    with pytest.raises(InvalidInput, match=r"times: found an array of shape \(1, 3\)"):
        as_xarray(service.surrogates["kinetics"], X0, TIMES[None], parameters=K)


def test_a_sweep_has_its_own_axes(model):
    sweep = {"parameters": {"p1": [0.6, 1.0]}, "x0": {"a": [0.2, 0.4, 0.6]}}
    found = model.as_xarray(X0[0], TIMES, parameters=K, sweep=sweep)
    assert found.x.dims == ("p1", "a", "time", "state")
    x0 = X0[0].copy()
    x0[0] = 0.4
    (expected,) = model.rollout([x0], TIMES, parameters=[K[0], 0.6])
    np.testing.assert_allclose(found.x.sel(p1=0.6, a=0.4), expected, rtol=1e-12)
