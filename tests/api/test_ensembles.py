"""Ensembles over HTTP: the mean, its derivatives, and the spread where asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spnode_client import Client
from tests.api.deployment import ensemble, opened, publish
from tests.core.models import random_states

TIMES = [0.5, 20.0]


@pytest.fixture(scope="module")
def several(deployment):
    """The ensemble that is served as ``several/1``; compiled when it is asked for."""
    found = ensemble()
    with opened(deployment.settings) as (database, blobs):
        publish(database, blobs, "several", found, certificate={})
    return found


def test_both_forms_and_the_client_have_mean_and_spread(deployment, client, several):
    x0 = random_states(3)
    body = {"model": "several/1", "x0": x0.tolist(), "times": TIMES, "spread": True}
    answer = client.post("/v1/rollout", json=body).json()
    with Client(deployment.url, deployment.key) as caller:
        sent = caller.rollout_record("several/1", x0, TIMES, spread=True)
        alone = caller.rollout_record("several/1", x0[0], TIMES)
    close = {"rtol": 1e-9, "atol": 1e-12}
    np.testing.assert_allclose(sent.x, several.rollout(x0, TIMES), **close)
    spread = several.rollout_spread(x0, TIMES)
    np.testing.assert_allclose(sent.spread, spread, **close)
    np.testing.assert_array_equal(answer["x"], sent.x)
    np.testing.assert_array_equal(answer["spread"], sent.spread)
    # Of one row the same bits, with the spread or without.
    np.testing.assert_array_equal(alone.x, sent.x[0])
    assert alone.spread is None
    np.testing.assert_allclose(sent.x.sum(axis=2), np.repeat(x0.sum(1)[:, None], 2, 1))


def test_derivatives_are_those_of_the_mean(client, several):
    x0, weights = random_states(1)[0], np.array([1.0, 2.0, -1.0])
    body = {"model": "several/1", "x0": x0.tolist(), "times": TIMES}
    body |= {"outputs": {"times": "final"}, "cotangents": weights.tolist()}
    found = client.post("/v1/rollout/vjp", json=body).json()["vjp"]["x0"]
    weighed = lambda x: jnp.vdot(weights, several.rollout(x, TIMES)[-1])  # noqa: E731
    np.testing.assert_allclose(found, jax.grad(weighed)(x0), rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize(
    ("model", "fields", "pointer"),
    [
        ("small", {"spread": True}, "/spread"),
        ("several/1", {"outputs": {"latent": True}}, "/outputs/latent"),
        ("several/1", {"spread": "yes"}, "/spread"),
    ],
)
def test_what_is_not_there_is_refused_by_name(client, several, model, fields, pointer):
    body = {"model": model, "x0": random_states(1).tolist(), "times": TIMES, **fields}
    response = client.post("/v1/rollout", json=body)
    assert response.status_code == 422
    assert pointer in [each["pointer"] for each in response.json()["errors"]]
