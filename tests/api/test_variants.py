"""``mode`` and ``precision`` over HTTP: what each promises, and what is refused."""

import io

import jax.numpy as jnp
import numpy as np
import pytest

from spnode_core.surrogate import cast_networks
from tests.core.models import random_states

TIMES = np.geomspace(2e-3, 900.0, 5)
SCALE = np.array([1.0, 4e-5, 1.1])


def post(client, **body):
    response = client.post("/v1/rollout", json={"times": TIMES.tolist(), **body})
    assert response.status_code == 200, response.text
    return np.array(response.json()["x"])


def packed(**members):
    buffer = io.BytesIO()
    np.savez(buffer, **members)
    return {
        "content": buffer.getvalue(),
        "headers": {"content-type": "application/x-npz"},
    }


@pytest.mark.parametrize(("name", "tolerance"), [("small", 1e-12), ("mixed", 1e-5)])
def test_throughput_agrees_up_to_rounding(caller, name, tolerance):
    x0 = random_states(70, seed=8)
    usual = post(caller, model=name, x0=x0.tolist())
    large = post(caller, model=name, x0=x0.tolist(), mode="throughput")
    np.testing.assert_allclose(large / SCALE, usual / SCALE, atol=tolerance, rtol=0)


def test_float64_is_the_model_with_networks_in_float64(deployment, caller):
    x0 = random_states(6, seed=9)
    double = cast_networks(deployment.surrogates["mixed"], jnp.float64)
    expected = np.asarray(double.rollout(x0, TIMES)) / SCALE
    found = post(caller, model="mixed", x0=x0.tolist(), precision="float64") / SCALE
    np.testing.assert_allclose(found, expected, atol=1e-12, rtol=0)
    usual = post(caller, model="mixed", x0=x0.tolist()) / SCALE
    assert np.abs(usual - expected).max() > 1e-9


def test_float64_of_a_model_in_float64_has_its_bits(client):
    x0 = random_states(3).tolist()
    double = post(client, model="small", x0=x0, precision="float64")
    np.testing.assert_array_equal(double, post(client, model="small", x0=x0))


def test_npz_says_both_as_text(client):
    x0 = random_states(6, seed=9)
    options = {"mode": "throughput", "precision": "float64"}
    body = packed(model="mixed", x0=x0, times=TIMES, **options)
    response = client.post("/v1/rollout", **body)
    assert response.status_code == 200, response.text
    as_text = post(client, model="mixed", x0=x0.tolist(), **options)
    np.testing.assert_array_equal(np.array(response.json()["x"]), as_text)


@pytest.mark.parametrize(("field", "value"), [("mode", "fast"), ("precision", "half")])
def test_what_is_neither_is_refused_by_name(client, field, value):
    x0 = np.array([0.5, 1e-5, 0.5])
    body = {"model": "small", "x0": x0.tolist(), "times": [1.0], field: value}
    for sent in (
        {"json": body},
        packed(model="small", x0=x0, times=np.ones(1), **{field: value}),
    ):
        response = client.post("/v1/rollout", **sent)
        assert response.status_code == 422
        assert response.json()["errors"][0]["pointer"] == f"/{field}"


def test_outputs_that_are_no_json_are_refused_by_name(client):
    x0 = np.array([0.5, 1e-5, 0.5])
    sent = packed(model="small", x0=x0, times=np.ones(1), outputs="{times")
    response = client.post("/v1/rollout", **sent)
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == "/outputs"
