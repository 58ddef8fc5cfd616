"""Rollouts of an ensemble: the mean, its bits, and the spread where it is asked for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from services.blobs import Blobs
from services.rollouts.answer import answer
from services.rollouts.canonical import canonical
from services.rollouts.engine import Engine
from services.rollouts.request import from_npz
from services.settings import Settings
from spnode_core import artifact
from spnode_core.ensemble import ensemble_of, members_of
from spnode_core.errors import InvalidInput
from spnode_core.neighbours import Neighbours
from tests.core.models import random_states, small_surrogate
from tests.services.test_rollouts_engine import LINEAR, TIMES, arrays, some
from tests.services.test_rollouts_request import LIMITS, PLAIN, fitted, npz

SEVERAL = dataclasses.replace(
    PLAIN, signature=PLAIN.signature.model_copy(update={"members": 3})
)


@pytest.fixture(scope="module")
def surrogate():
    """Three members whose networks are in float32."""
    jax.config.update("jax_enable_x64", True)
    options = {"precision": "mixed", "normalisation": LINEAR}
    return ensemble_of([small_surrogate(seed=i, **options) for i in range(3)])


@pytest.fixture(scope="module")
def knowing(surrogate):
    """The same, which knows where it was trained."""
    draws = np.random.default_rng(0)
    domain = surrogate.signature.domain.model_copy(update={"neighbours": 40})
    members = []
    for one in members_of(surrogate):
        z = jnp.asarray(draws.uniform(-1, 1, (40, one.signature.latent)))
        kept = Neighbours.of(z, jnp.ones(z.shape[1]))
        signature = one.signature.model_copy(update={"domain": domain})
        members.append(dataclasses.replace(one, signature=signature, neighbours=kept))
    return ensemble_of(members)


@pytest.fixture(scope="module")
def served(surrogate, tmp_path_factory):
    """An engine, and the digest of the ensemble in its store."""
    folder = tmp_path_factory.mktemp("engine")
    settings = Settings(data_folder=folder / "data")
    blobs = Blobs(settings.store_url)
    digest = artifact.save(surrogate, folder / "three")
    blobs.put(f"artifacts/{digest}", folder / "three")
    return Engine(settings, blobs), digest


@pytest.mark.parametrize("operation", ["rollout", "vjp"])
def test_rows_know_how_far_they_are_from_what_was_seen(knowing, tmp_path, operation):
    settings = Settings(data_folder=tmp_path / "data")
    blobs = Blobs(settings.store_url)
    digest = artifact.save(knowing, tmp_path / "three")
    blobs.put(f"artifacts/{digest}", tmp_path / "three")
    given = arrays(operation, 3)
    found = Engine(settings, blobs).run(operation, digest, given)["distance"]
    parameters = np.zeros((3, 0))
    expected = jax.vmap(knowing.distance)(given["x0"], parameters)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("operation", ["rollout", "vjp"])
def test_bits_depend_on_neither_neighbours_nor_size(served, operation):
    engine, digest = served
    given = arrays(operation, 45)
    whole = engine.run(operation, digest, given)
    for _ in range(2):
        for start, stop in ((0, 1), (44, 45), (3, 5), (1, 9), (5, 38)):
            part = engine.run(operation, digest, some(given, start, stop))
            for field, array in part.items():
                assert array.tobytes() == whole[field][start:stop].tobytes(), field
        # Once more with whichever smaller tiles turn out to give the same bits.
        while engine.idle():
            pass


def test_a_rollout_is_the_mean_and_comes_with_the_spread(served, surrogate):
    engine, digest = served
    x0 = random_states(3)
    found = engine.run("rollout", digest, {"x0": x0, "times": TIMES})
    each = [one.rollout(x0, TIMES) for one in members_of(surrogate)]
    np.testing.assert_allclose(found["x"], np.mean(each, axis=0), rtol=1e-5, atol=1e-8)
    deviation = np.std(each, axis=0, ddof=1)
    np.testing.assert_allclose(found["spread"], deviation, rtol=1e-4, atol=1e-7)


def test_spread_is_there_where_it_is_asked_for():
    outputs = {"states": ["b"], "times": "final"}
    results = {"x": np.ones((1, 1, 2)), "spread": np.array([[[0.1, 0.2]]])}
    asked = {"spread": True, "outputs": outputs}
    request, work, layout = fitted(served=SEVERAL, **asked)
    assert answer(request, SEVERAL, work, layout, results)["spread"].tolist() == [0.2]
    usual = fitted(served=SEVERAL, outputs=outputs)
    assert "spread" not in answer(usual[0], SEVERAL, *usual[1:], results)
    # They may share a batch.
    assert work.key == usual[1].key
    member = npz(model="m", x0=[0.5, 1.0], times=[1.0, 2.0], spread=True)
    assert canonical(from_npz("rollout", member, 10**6), SEVERAL, LIMITS)[1].spread
    wrong = npz(model="m", x0=[0.5, 1.0], times=[1.0, 2.0], spread=1.0)
    with pytest.raises(InvalidInput, match="expected one bool"):
        from_npz("rollout", wrong, 10**6)


@pytest.mark.parametrize(
    ("operation", "served", "fields", "field", "said"),
    [
        ("rollout", PLAIN, {"spread": True}, "spread", "has one member"),
        (
            "vjp",
            SEVERAL,
            {"spread": True, "cotangents": [[1.0, 0.0], [0.0, 0.0]]},
            "spread",
            "only the states of a rollout",
        ),
        (
            "rollout",
            SEVERAL,
            {"outputs": {"latent": True}},
            "outputs.latent",
            "has 3 members, each with latent states of its own",
        ),
    ],
)
def test_what_a_version_has_not_is_refused(operation, served, fields, field, said):
    with pytest.raises(InvalidInput, match=said) as refused:
        fitted(operation, served, **fields)
    assert refused.value.field == field
