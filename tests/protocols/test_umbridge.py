"""The UM-Bridge door: the protocol's behaviours, exact derivatives, its own refusals.

The behaviours are those that the protocol's conformity suite checks; how the suite itself
ends is in docs/results/umbridge_conformity.md.
"""

import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spnode_core.surrogate import cast_networks
from tests.core.models import random_states
from tests.protocols.kinetics import SCALE, close
from tests.protocols.umbridge_calls import OPERATIONS, answer, opened_door, refused

SIZES = {"plain": [3], "kinetics": [3, 2], "forced": [3, 1, 2]}
# Few programs are compiled: all rollouts have as many steps.
T1 = 3.0
TIMES = [0.3, 1.7, 3.0]
EXACT = {"precision": "float64"}
# Two states at all times, and controls that switch once.
CHOSEN = {"times": TIMES, "states": ["c", "a"], "control_times": [0.0, 0.5]}


@pytest.fixture(scope="module")
def door(service):
    with opened_door(service) as client:
        yield client


def inputs(model, intervals=1):
    x0 = random_states(1, seed=4)[0].tolist()
    parameters = {"plain": [], "kinetics": [1.2, 0.8], "forced": [1.2]}[model]
    controls = [0.4, -0.7, 0.1, 0.6][: 2 * intervals]
    return [x0, parameters, controls][: len(SIZES[model])]


def function(surrogate, model, times, *, order=(0, 1, 2), switches=(0.0,), final=True):
    """The states as one vector of the input vectors, in this process."""
    exact = cast_networks(surrogate, jnp.float64)

    def states(*vectors):
        rest = {}
        if model != "plain":
            rest["parameters"] = vectors[1]
        if model == "forced":
            controls = vectors[2].reshape(len(switches), 2)
            rest |= {"controls": controls, "control_times": np.array(switches)}
        x = exact.rollout(vectors[0], np.array(times), **rest)[:, jnp.array(order)]
        return (x[-1] if final else x).ravel()

    return states


def test_info_lists_the_models_and_nothing_else(door):
    found = door.get("/Info").json()
    assert set(found) == {"protocolVersion", "models"}
    assert found["protocolVersion"] == 1.0
    # Other files may have published more.
    assert found["models"] == sorted(found["models"])
    named = ("forced", "kinetics", "plain")
    mine = [each for each in found["models"] if each.split("@")[0] in named]
    assert mine == ["forced@latest", "kinetics@latest", "plain@latest"]


def test_an_address_of_one_model_has_that_model(door):
    for name in ("plain@latest", "plain/1", "plain:1"):
        assert door.get(f"/{name}/Info").json()["models"] == [name]
        found = door.post(f"/{name}/InputSizes", content=json.dumps({"name": name}))
        assert found.json() == {"inputSizes": [3]}
    other = door.post("/plain@latest/InputSizes", content='{"name": "forced@latest"}')
    assert "'plain@latest' alone" in refused(other, "ModelNotFound")
    refused(door.get("/nothing/Info"), "ModelNotFound")


def test_who_looks_with_a_browser_is_told_what_there_is(door):
    found = door.get("").json()
    assert found["models"] == door.get("/Info").json()["models"]
    assert set(found["config"]["properties"]) > {"t1", "packed", "observations"}
    one = door.get("/kinetics@latest").json()
    assert one["inputs"] == [["a", "b", "c"], ["p0", "p1"]]
    assert one["outputs"] == [["a", "b", "c"]]
    assert door.head("").status_code == 200


@pytest.mark.parametrize("model", SIZES)
def test_support_and_sizes(door, model):
    name = f"{model}@latest"
    assert answer(door, "ModelInfo", name=name) == dict.fromkeys(OPERATIONS, True)
    assert answer(door, "InputSizes", name=name) == SIZES[model]
    assert answer(door, "OutputSizes", name=name) == [3]
    (output,) = answer(door, "Evaluate", name=name, input=inputs(model))
    assert len(output) == 3


@pytest.mark.parametrize(
    ("config", "sizes", "outputs"),
    [
        ({"packed": True}, [6], 3),
        ({"times": TIMES}, [3, 1, 2], 9),
        ({"times": {"stop": 2.0, "count": 4}, "states": ["b"]}, [3, 1, 2], 4),
        ({"times": {"dt": 0.5, "steps": 2}}, [3, 1, 2], 9),
        ({"control_times": [0, 1, 2]}, [3, 1, 6], 3),
        ({"fixed": {"controls": [0.0, 0.0]}}, [3, 1], 3),
        ({"fixed": {"x0": [None, 0.0, None]}, "packed": True}, [5], 3),
        ({"observations": [1, None, 1], "noise": 0.1}, [3, 1, 2], 1),
    ],
)
def test_sizes_follow_the_config(door, config, sizes, outputs):
    name = "forced@latest"
    assert answer(door, "InputSizes", name=name, config=config) == sizes
    assert answer(door, "OutputSizes", name=name, config=config) == [outputs]


@pytest.mark.parametrize(
    ("model", "config"),
    [("kinetics", {"t1": T1}), ("forced", {"t1": T1}), ("forced", CHOSEN)],
)
def test_derivatives_are_those_of_the_surrogate(service, door, model, config):
    surrogate = service.surrogates[model]
    if config is CHOSEN:
        given, order = inputs(model, 2), [2, 0]
        chosen = {"order": order, "switches": [0.0, 0.5], "final": False}
        states = function(surrogate, model, TIMES, **chosen)
    else:
        given, order = inputs(model), [0, 1, 2]
        states = function(surrogate, model, [T1])
    call = {"name": f"{model}@latest", "input": given, "config": config | EXACT}
    x = np.asarray(states(*map(jnp.array, given)))
    scale = np.resize(SCALE[order], x.shape)
    close(answer(door, "Evaluate", **call)[0], x, 1 / scale)
    every = jax.jacobian(states, tuple(range(len(given))))(*map(jnp.array, given))
    draws = np.random.default_rng(1)
    sens = draws.normal(size=len(x)) / scale
    for index, jacobian in enumerate(every):
        sizes = np.ones(len(given[index])) if index else SCALE
        wrt = {"outWrt": 0, "inWrt": index}
        found = answer(door, "Gradient", **call, **wrt, sens=sens.tolist())
        close(found, sens @ jacobian, sizes)
        vec = draws.normal(size=len(sizes)) * sizes
        found = answer(door, "ApplyJacobian", **call, **wrt, vec=vec.tolist())
        close(found, jacobian @ vec, 1 / scale)


@pytest.mark.parametrize("config", [{"t1": 0}, {"times": [0]}])
def test_the_start_is_a_time_too(service, door, config):
    x0, parameters = inputs("kinetics")
    name = "kinetics@latest"
    assert answer(door, "InputSizes", name=name, config=config) == [3, 2]
    call = {"name": name, "input": [x0, parameters], "config": config | EXACT}
    (found,) = answer(door, "Evaluate", **call)
    states = function(service.surrogates["kinetics"], "kinetics", [0.0])
    close(found, np.asarray(states(jnp.array(x0), jnp.array(parameters))), 1 / SCALE)


def test_hessians_cross_inputs(service, door):
    states = function(service.surrogates["kinetics"], "kinetics", [T1])
    given = inputs("kinetics")
    vectors = [jnp.array(each) for each in given]
    sens, vec = np.array([0.3, -2.0, 1.1]), np.array([0.2, -0.5])

    def gradient(*vectors):
        return jax.grad(lambda *v: sens @ states(*v), 0)(*vectors)

    expected = jax.jacobian(gradient, 1)(*vectors) @ vec
    found = answer(
        door,
        "ApplyHessian",
        name="kinetics@latest",
        input=given,
        config={"t1": T1, **EXACT},
        **{"outWrt": 0, "inWrt1": 0, "inWrt2": 1},
        sens=sens.tolist(),
        vec=vec.tolist(),
    )
    close(found, expected, SCALE)


def test_the_log_likelihood_has_all_derivatives(service, door):
    """Packed, one number fixed, one observation missing: one function of four numbers."""
    states = function(service.surrogates["kinetics"], "kinetics", TIMES, final=False)
    x0, parameters = map(np.array, inputs("kinetics"))
    noise = 0.02 * SCALE
    y = np.array(states(1.1 * x0, parameters)).reshape(3, 3)
    seen = np.ones((3, 3), bool)
    seen[1, 2] = False

    def log_likelihood(theta):
        start = jnp.array([theta[0], x0[1], theta[1]])
        x = states(start, theta[2:]).reshape(3, 3)
        deviations = (x - y) / noise[None, :]
        constants = jnp.log(noise[None, :] * jnp.sqrt(2 * jnp.pi))
        each = -0.5 * deviations**2 - constants
        return jnp.where(seen, each, 0.0).sum()

    theta = jnp.array([x0[0], x0[2], *parameters])
    vec = np.array([0.3, -0.2, 0.5, 0.1])
    observations = y.tolist()
    observations[1][2] = None
    config = {
        "times": TIMES,
        "observations": observations,
        "noise": noise.tolist(),
        "fixed": {"x0": [None, x0[1], None]},
        "packed": True,
        **EXACT,
    }
    call = {"name": "kinetics@latest", "input": [theta.tolist()], "config": config}
    wrt = {"outWrt": 0, "inWrt": 0}
    close(answer(door, "Evaluate", **call), [[log_likelihood(theta)]])
    gradient = jax.grad(log_likelihood)(theta)
    close(answer(door, "Gradient", **call, **wrt, sens=[2.0]), 2 * gradient)
    found = answer(door, "ApplyJacobian", **call, **wrt, vec=vec.tolist())
    close(found, [gradient @ vec])
    found = answer(
        door,
        "ApplyHessian",
        **call,
        **{"outWrt": 0, "inWrt1": 0, "inWrt2": 0},
        sens=[2.0],
        vec=vec.tolist(),
    )
    close(found, 2 * jax.hessian(log_likelihood)(theta) @ vec)


def test_concurrent_calls_share_batches(service, door):
    def counted():
        url = f"{service.url}/health/ready"
        told = httpx.get(url, timeout=60, trust_env=False).json()["rollouts"]
        return np.array([told["rows"], told["batches"]])

    call = {"name": "kinetics@latest", "input": inputs("kinetics")}
    call |= {"outWrt": 0, "inWrt": 1, "sens": [1.0, 0.0, 0.0], "config": {"t1": T1}}
    first = answer(door, "Gradient", **call)
    before = counted()
    with ThreadPoolExecutor(32) as pool:
        many = list(pool.map(lambda _: answer(door, "Gradient", **call), range(256)))
    rows, batches = counted() - before
    assert all(each == first for each in many)
    assert rows == 256
    # 32 wait at a time; how many are there when a batch begins is the machine's affair.
    assert rows / batches > 2
