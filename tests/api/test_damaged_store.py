"""A version whose file has rotted in the store is given to nobody."""

import tempfile

import httpx
import numpy as np
import pytest

from spnode_client import Client, ServiceFault
from tests.api.deployment import LINEAR, deployed, opened, publish
from tests.api.serving import serving
from tests.core.models import random_states, small_surrogate


@pytest.fixture(scope="module")
def store():
    """A service of its own, with a version; its client, the version's file, a key."""
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
            yield client, path, deployment.key


@pytest.mark.parametrize("place", [0, 0.5, 1])
def test_a_rotten_file_reaches_no_caller(store, tmp_path, monkeypatch, place):
    client, path, _ = store
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
            lambda: client.rollout("rotten/1", random_states(1)[0], [1.0]),
        ):
            with pytest.raises(ServiceFault) as refused:
                call()
            assert refused.value.code == "damaged"
    finally:
        path.write_bytes(whole)
    assert list(tmp_path.iterdir()) == [temporary]
    assert list(temporary.iterdir()) == []


def test_a_file_that_is_put_right_is_served_again(store, tmp_path):
    client, path, _ = store
    copy = client.models.download("rotten/1", tmp_path / "whole.spnode")
    assert copy.read_bytes() == path.read_bytes()
    assert client.rollout("rotten/1", random_states(1)[0], [1.0]).shape == (1, 3)


def test_a_dataset_is_whole_or_refused(store, tmp_path):
    client, version, key = store
    sent, back = tmp_path / "sent.npz", tmp_path / "back.npz"
    states = np.arange(20.0).reshape(2, 5, 2)
    np.savez(sent, states=states, times=np.arange(5.0), names=np.array(["a", "b"]))
    made = client.datasets.upload(sent)
    (path,) = (version.parents[1] / "datasets").iterdir()
    whole = path.read_bytes()
    address = f"{client.url}/v1/datasets/{made.id}/data"
    headers = {"Authorization": f"Bearer {key}", "Range": "bytes=10-19"}
    part = httpx.get(address, headers=headers, trust_env=False)
    assert (part.status_code, part.content) == (206, whole[10:20])
    path.write_bytes(whole[:-1] + b"\1")
    with pytest.raises(ServiceFault) as refused:
        client.datasets.download(made.id, back)
    assert refused.value.code == "damaged"
    part = httpx.get(address, headers=headers, trust_env=False)
    assert (part.status_code, part.json()["code"]) == (500, "damaged")
    path.unlink()
    with pytest.raises(ServiceFault, match="restore it from a backup"):
        client.datasets.download(made.id, back)
    path.write_bytes(whole)
    assert client.datasets.download(made.id, back).read_bytes() == whole
