"""A version whose file has rotted in the store is given to nobody."""

import tempfile

import pytest

from spnode_client import Client, ServiceFault, Unreachable
from tests.api.deployment import LINEAR, deployed, opened, publish
from tests.api.serving import serving
from tests.core.models import random_states, small_surrogate


@pytest.fixture(scope="module")
def store():
    """A service of its own, with a version; its client, and the version's file."""
    with deployed() as deployment:
        with opened(deployment.settings) as (database, blobs):
            surrogate = small_surrogate(normalisation=LINEAR)
            publish(database, blobs, "rotten", surrogate, certificate={})
            (key,) = blobs.list("artifacts")
            assert blobs.root is not None
            path = blobs.root / key
        with (
            serving(deployment.settings) as url,
            Client(url, deployment.key, retries=0) as client,
        ):
            yield client, path


@pytest.mark.parametrize("place", [0, 0.5, 1])
def test_a_rotten_file_reaches_no_caller(store, tmp_path, monkeypatch, place):
    client, path = store
    whole = path.read_bytes()
    rotten = bytearray(whole)
    rotten[int(place * (len(whole) - 1))] ^= 4
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    path.write_bytes(rotten)
    try:
        for call in (
            lambda: client.models.load("rotten/1"),
            lambda: client.models.export("rotten/1", tmp_path / "exported", [0.1]),
            lambda: client.models.download("rotten/1", tmp_path / "rotten.spnode"),
        ):
            with pytest.raises(Unreachable):
                call()
        with pytest.raises(ServiceFault) as refused:
            client.rollout("rotten/1", random_states(1)[0], [1.0])
    finally:
        path.write_bytes(whole)
    assert refused.value.code == "damaged"
    assert list(tmp_path.iterdir()) == [temporary]
    assert list(temporary.iterdir()) == []


def test_a_file_that_is_put_right_is_served_again(store, tmp_path):
    client, path = store
    copy = client.models.download("rotten/1", tmp_path / "whole.spnode")
    assert copy.read_bytes() == path.read_bytes()
    assert client.rollout("rotten/1", random_states(1)[0], [1.0]).shape == (1, 3)
