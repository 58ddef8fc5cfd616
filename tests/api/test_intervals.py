"""Intervals and distances over HTTP: JSON, npz, client; and versions without them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spnode_client import Client, InvalidRequest
from tests.core.models import random_states

TIMES = [0.5, 20.0]


def test_both_forms_and_the_client_have_the_same_intervals(deployment, client):
    x0 = random_states(3)
    body = {"model": "small", "x0": x0.tolist(), "times": TIMES, "intervals": 0.9}
    answer = client.post("/v1/rollout", json=body).json()
    with Client(deployment.url, deployment.key) as caller:
        sent = caller.rollout_record("small", x0, TIMES, intervals=0.9)
        plain = caller.rollout_record("small", x0, TIMES)
    assert answer["coverage"] == sent.coverage == 0.9
    np.testing.assert_array_equal(sent.x, plain.x)
    np.testing.assert_allclose(sent.upper - sent.x, 0.1, rtol=1e-12)
    np.testing.assert_array_equal(answer["lower"], sent.lower)
    np.testing.assert_array_equal(answer["upper"], sent.upper)
    assert plain.lower is None


def test_a_version_without_intervals_says_why(deployment):
    with (
        Client(deployment.url, deployment.key) as caller,
        pytest.raises(InvalidRequest, match="has no intervals"),
    ):
        caller.rollout_record("mixed", random_states(1), TIMES, intervals=0.9)


def test_each_row_has_its_distance_from_the_training_samples(deployment, client):
    x0 = random_states(5)
    surrogate = deployment.surrogates["small"]
    expected = jax.vmap(lambda x: surrogate.distance(x, jnp.zeros(0)))(x0)
    body = {"model": "small", "x0": x0.tolist(), "times": TIMES}
    body["outputs"] = {"domain": True}
    for path in ("rollout", "rollout/jacobian"):
        answer = client.post(f"/v1/{path}", json=body).json()
        found = answer["domain"]["distance"]
        np.testing.assert_allclose(found, np.asarray(expected), rtol=1e-5)
