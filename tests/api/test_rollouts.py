import functools
import io
import json
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from tests.core.models import GRID, random_states

TIMES = np.geomspace(2e-3, 900.0, 7)
X0 = random_states(48)
BODY = {"x0": X0.tolist(), "times": TIMES.tolist()}


def npz(**members):
    buffer = io.BytesIO()
    np.savez(buffer, **members)
    return buffer.getvalue()


def unpack(response):
    assert response.headers["content-type"] == "application/x-npz"
    with np.load(io.BytesIO(response.content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def post(client, path="/v1/rollout", **body):
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.fixture(scope="session")
def library(data):
    """The library's own answer to BODY and its derivative, compiled once a model."""

    @functools.cache
    def compute(name):
        rollout = functools.partial(data.surrogates[name].rollout, times=TIMES)
        return jax.vjp(rollout, X0)

    return compute


def scaled(x):
    """States of order one; the second is some 1e-5."""
    return np.asarray(x) / np.array([1.0, 4e-5, 1.1])


@pytest.mark.parametrize(("name", "tolerance"), [("small", 1e-12), ("mixed", 1e-5)])
def test_a_rollout_is_that_of_the_library(caller, library, name, tolerance):
    answer = post(caller, model=name, **BODY)
    expected, _ = library(name)
    np.testing.assert_allclose(
        scaled(answer["x"]), scaled(expected), atol=tolerance, rtol=0
    )
    assert answer["model"] == name
    assert answer["version"] == 1
    np.testing.assert_array_equal(answer["times"], TIMES)


def test_one_state_gives_one_trajectory_with_the_same_bits(client):
    many = post(client, model="small", **BODY)
    for row in (0, 17, 47):
        one = post(client, **{**BODY, "model": "small", "x0": X0[row].tolist()})
        assert one["x"] == many["x"][row]


@pytest.mark.parametrize("name", ["small", "mixed"])
@pytest.mark.parametrize("rows", [1, 2, 3, 9, 33])
def test_bits_do_not_depend_on_the_size_of_the_batch(caller, name, rows):
    x0 = random_states(70, seed=4)
    whole = post(caller, model=name, x0=x0.tolist(), times=GRID[1:].tolist())
    part = post(
        caller, model=name, x0=x0[70 - rows :].tolist(), times=GRID[1:].tolist()
    )
    assert part["x"] == whole["x"][70 - rows :]


def test_both_executors_give_the_same_bits(deployment, queue_deployment):
    body = {"model": "mixed", "x0": random_states(11).tolist(), "times": [0.5, 70.0]}
    with deployment.client() as here, queue_deployment.client() as there:
        assert post(here, **body)["x"] == post(there, **body)["x"]


def test_npz_and_json_round_trip_the_same_numbers(client):
    x0 = random_states(6)
    text = post(client, model="small", x0=x0.tolist(), times=TIMES.tolist())
    response = client.post(
        "/v1/rollout",
        content=npz(model="small", x0=x0, times=TIMES, outputs='{"domain": true}'),
        headers={"content-type": "application/x-npz", "accept": "application/x-npz"},
    )
    members = unpack(response)
    np.testing.assert_array_equal(members["x"], np.array(text["x"]))
    assert str(members["model"]) == "small"
    assert int(members["version"]) == 1
    assert json.loads(str(members["domain"]))["inside"] == text["domain"]["inside"]


def test_times_may_be_a_rule(client):
    rule = {"start": 1e-3, "stop": 1e3, "count": 13, "spacing": "log"}
    by_rule = post(client, model="small", x0=[0.5, 1e-5, 0.5], times=rule)
    by_list = post(client, model="small", x0=[0.5, 1e-5, 0.5], times=by_rule["times"])
    assert by_rule["x"] == by_list["x"]
    np.testing.assert_allclose(by_rule["times"], GRID[1:], rtol=1e-14)


def test_a_value_does_not_depend_on_other_times(client):
    x0 = random_states(3).tolist()
    all_of_them = post(client, model="small", x0=x0, times=TIMES.tolist())
    final = post(
        client,
        model="small",
        x0=x0,
        times=TIMES.tolist(),
        outputs={"times": "final"},
    )
    assert np.shape(final["x"]) == (3, 3)
    assert final["times"] == [TIMES[-1]]
    np.testing.assert_allclose(
        scaled(final["x"]), scaled(all_of_them["x"])[:, -1], atol=1e-13
    )


def test_outputs_may_be_some_states_and_the_latent(client):
    x0 = random_states(2).tolist()
    whole = post(client, model="small", x0=x0, times=[1.0, 2.0])
    part = post(
        client,
        model="small",
        x0=x0,
        times=[1.0, 2.0],
        outputs={"states": ["c", "a"], "latent": True},
    )
    np.testing.assert_array_equal(part["x"], np.array(whole["x"])[:, :, [2, 0]])
    assert np.shape(part["z"]) == (2, 2, 5)


def test_rows_outside_the_training_domain_are_said(client):
    answer = post(
        client,
        model="small",
        x0=[[0.5, 1e-5, 0.5], [0.5, 1e-5, 3.0]],
        times=[1.0, 2e3],
        outputs={"domain": True},
    )
    assert answer["domain"]["inside"] == [False, False]
    assert len(answer["warnings"]) == 2
    named = {each.get("name", each["field"]) for each in answer["domain"]["outside"]}
    assert named == {"c", "mass", "times"}


def test_short_form_is_the_same_handler(client):
    body = {"model": "small@latest", "x0": [0.5, 1e-5, 0.5], "times": [1.0]}
    assert post(client, "/rollout", **body) == post(client, "/v1/rollout", **body)


@pytest.mark.parametrize("final", [False, True])
def test_vjp_is_the_gradient_of_the_library(caller, library, final):
    weights = np.random.default_rng(1).normal(size=(48, len(TIMES), 3))
    if final:
        weights[:, :-1] = 0.0
    answer = post(
        caller,
        "/v1/rollout/vjp",
        model="small",
        **BODY,
        outputs={"times": "final" if final else "all"},
        cotangents=(weights[:, -1] if final else weights).tolist(),
    )
    _, pull = library("small")
    expected = np.asarray(pull(weights)[0])
    scale = np.abs(expected).max(axis=0)
    np.testing.assert_allclose(
        np.array(answer["vjp"]["x0"]) / scale, expected / scale, atol=1e-10
    )


def test_many_directions_and_cotangents_in_one_call_are_those_of_the_library(
    caller, library
):
    draws = np.random.default_rng(5)
    weights = draws.normal(size=(3, 48, len(TIMES), 3))
    ways = draws.normal(size=(3, 48, 3)) * [1.0, 4e-5, 1.1]
    reverse = post(
        caller, "/v1/rollout/vjp", model="small", **BODY, cotangents=weights.tolist()
    )
    forward = post(
        caller, "/v1/rollout/jvp", model="small", **BODY, tangents={"x0": ways.tolist()}
    )
    _, pull = library("small")
    for k in range(3):
        expected = np.asarray(pull(weights[k])[0])
        scale = np.abs(expected).max(axis=0)
        found = np.array(reverse["vjp"]["x0"][k])
        np.testing.assert_allclose(found / scale, expected / scale, atol=1e-10)
        paired = (weights[k] * np.array(forward["jvp"][k])).sum()
        assert paired == pytest.approx((expected * ways[k]).sum(), rel=1e-9)


def test_derivatives_of_parameters_and_controls_pair_up(caller):
    """<w, J v> = <J^T w, v>, with one parameter vector shared by all rows."""
    draws = np.random.default_rng(3)
    common = {
        "model": "forced",
        "x0": random_states(4).tolist(),
        "times": [0.3, 5.0, 60.0],
        "parameters": [1.3],
        "controls": draws.uniform(-1, 1, (4, 2, 2)).tolist(),
        "control_times": [0.0, 2.0],
    }
    weights = draws.normal(size=(4, 3, 3))
    tangents = {
        "x0": (draws.normal(size=(4, 3)) * [1.0, 4e-5, 1.1]).tolist(),
        "parameters": [0.7],
        "controls": draws.normal(size=(4, 2, 2)).tolist(),
    }
    forward = post(caller, "/v1/rollout/jvp", **common, tangents=tangents)
    reverse = post(caller, "/v1/rollout/vjp", **common, cotangents=weights.tolist())
    assert np.shape(reverse["vjp"]["parameters"]) == (1,)
    assert forward["x"] == reverse["x"]
    left = (weights * forward["jvp"]).sum()
    right = sum(
        (np.array(reverse["vjp"][name]) * tangents[name]).sum() for name in tangents
    )
    assert left == pytest.approx(right, rel=1e-10)


def test_a_controlled_rollout_is_that_of_the_library(deployment, client):
    x0 = random_states(2)
    controls = [[0.5, -0.5], [1.0, 0.0]]
    answer = post(
        client,
        model="forced",
        x0=x0.tolist(),
        times=[1.0, 3.0],
        parameters=[1.0],
        controls=controls,
        control_times=[0.0, 1.5],
    )
    expected = deployment.surrogates["forced"].rollout(
        x0,
        np.array([1.0, 3.0]),
        parameters=np.array([1.0]),
        controls=np.array(controls),
        control_times=np.array([0.0, 1.5]),
    )
    np.testing.assert_allclose(scaled(answer["x"]), scaled(expected), atol=1e-12)


def test_a_shape_is_what_is_at_fault_where_it_is(caller):
    x0, times = [0.5, 1e-5, 0.5], [1.0]
    body = {"model": "forced", "x0": x0, "times": times, "parameters": [1.0]}

    def refused(**members):
        headers = {"content-type": "application/x-npz"}
        content = npz(**{**body, **members})
        return caller.post("/v1/rollout", content=content, headers=headers).json()

    problem = refused(controls=[0.2, 0.1])
    assert problem["errors"][0]["pointer"] == "/controls"
    assert "shape (2,); expected (interval, 2)" in problem["detail"]
    assert len(post(caller, **body, controls=[[0.2, 0.1]])["x"]) == 1
    problem = refused(x0=np.zeros((0, 3)), controls=[[0.2, 0.1]])
    assert "shape (0, 3); expected at least one row of 3 states" in problem["detail"]


def test_a_row_that_leaves_the_finite_range_is_named(caller):
    body = {
        "model": "small",
        "x0": [[0.5, 1e-5, 0.5], [1e308, 1e308, 1e308]],
        "times": [1.0, 2.0],
    }
    response = caller.post("/v1/rollout", json=body)
    assert response.status_code == 422
    problem = response.json()
    assert problem["code"] == "rollout_failed"
    assert problem["errors"][0]["pointer"] == "/x0/1"
    assert "1.0 on; on_error: mask gives the other rows" in problem["detail"]
    # Where there are no others, nothing is promised.
    alone = caller.post("/v1/rollout", json=body | {"x0": body["x0"][1:]}).json()
    assert alone["detail"] == "row 0 is not finite from time 1.0 on"
    masked = post(caller, **body, on_error="mask")
    assert masked["x"][1] is None
    assert masked["rows"] == [{"row": 1, "code": "rollout_failed", "time": 1.0}]
    assert np.isfinite(masked["x"][0]).all()


def test_many_callers_at_once_get_their_own_answers(served, library):
    with served.client() as client, ThreadPoolExecutor(16) as pool:

        def one(row):
            body = {"model": "small", "x0": X0[row].tolist(), "times": TIMES.tolist()}
            return post(client, **body)["x"]

        found = list(pool.map(one, range(48)))
    np.testing.assert_allclose(scaled(found), scaled(library("small")[0]), atol=1e-12)


def test_large_bodies_are_answered_too(client):
    x0 = random_states(3000)
    response = client.post(
        "/v1/rollout",
        json={"model": "small", "x0": x0.tolist(), "times": [1.0, 5.0, 9.0]},
        headers={"accept": "application/x-npz"},
    )
    assert unpack(response)["x"].shape == (3000, 3, 3)


def test_an_expired_deadline_is_a_problem(client):
    began = time.monotonic()
    response = client.post(
        "/v1/rollout",
        json={"model": "small", "x0": [0.5, 1e-5, 0.5], "times": [1.0]},
        headers={"request-timeout": "0.000001"},
    )
    assert response.status_code == 504
    assert response.json()["code"] == "deadline_passed"
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("given", ["soon", "-1", "0", "nan", "1e9"])
def test_a_deadline_that_is_none_is_refused(client, given):
    response = client.post(
        "/v1/rollout",
        json={"model": "small", "x0": [0.5, 1e-5, 0.5], "times": [1.0]},
        headers={"request-timeout": given},
    )
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == "/Request-Timeout"
