"""A version's file that comes altered: no surrogate, and nothing is left on disk."""

import asyncio
import json
import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest

from spnode_client import AsyncClient, Client, Unreachable
from spnode_core import save
from spnode_core.errors import ArtifactError
from tests.api.deployment import LINEAR
from tests.client.conftest import Answer
from tests.core.models import random_states, small_surrogate

jax.config.update("jax_enable_x64", True)


@pytest.fixture(scope="module")
def surrogate():
    return small_surrogate(seed=1, normalisation=LINEAR)


@pytest.fixture(scope="module")
def whole(surrogate, tmp_path_factory):
    """The content of a version, and its digest."""
    path = tmp_path_factory.mktemp("artifact") / "whole.spnode"
    digest = save(surrogate, path)
    return path.read_bytes(), digest


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where the client keeps what it fetches."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def flipped(content):
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :]


def another(content):
    """A file without any fault, of another version."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "other.spnode"
        save(small_surrogate(seed=2, normalisation=LINEAR), path)
        return path.read_bytes()


def cut(content):
    return content[:-40]


def empty(content):
    return b""


def answers(whole, altered=bytes):
    content, digest = whole
    version = {"model": "m", "number": 1, "digest": digest}
    return [Answer(200, json.dumps(version).encode()), Answer(200, altered(content))]


def test_what_comes_whole_is_loaded(server, surrogate, whole, temporary):
    server.answers += answers(whole)
    with Client(server.url) as client:
        loaded = client.models.load("m")
    x0, times = random_states(1)[0], np.array([0.1, 10.0])
    expected = surrogate.rollout(x0, times)
    np.testing.assert_array_equal(loaded.rollout(x0, times), expected)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("altered", [flipped, another, cut, empty])
def test_what_comes_altered_is_neither_loaded_nor_exported(
    server, whole, temporary, tmp_path, altered
):
    server.answers += answers(whole, altered) * 2
    said = rf"version\.spnode has SHA-256 .*, but {whole[1]} is expected"
    with Client(server.url) as client:
        with pytest.raises(ArtifactError, match=said):
            client.models.load("m")
        with pytest.raises(ArtifactError, match=said):
            client.models.export("m", tmp_path / "exported", [0.1, 1.0])
    assert list(tmp_path.iterdir()) == [temporary]
    assert list(temporary.iterdir()) == []


def test_the_async_client_refuses_it_too(server, whole, temporary, tmp_path):
    server.answers += answers(whole, flipped) * 2

    async def use():
        async with AsyncClient(server.url) as client:
            with pytest.raises(ArtifactError, match="SHA-256"):
                await client.models.load("m")
            with pytest.raises(ArtifactError, match="SHA-256"):
                await client.models.export("m", tmp_path / "exported", [0.1, 1.0])

    asyncio.run(use())
    assert list(tmp_path.iterdir()) == [temporary]
    assert list(temporary.iterdir()) == []


def test_what_the_service_says_the_digest_of_is_fetched_again_first(
    server, whole, temporary
):
    content, digest = whole
    etag = {"ETag": f'"{digest}"'}
    version, _ = answers(whole)
    server.answers += [version, Answer(200, flipped(content), etag)]
    with (
        Client(server.url, retries=0) as client,
        pytest.raises(Unreachable, match=r"^the file from .* came altered"),
    ):
        client.models.load("m")
    server.answers += [version, Answer(200, flipped(content), etag)]
    server.answers += [Answer(200, content, etag)]
    with Client(server.url) as client:
        client.models.load("m")
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("altered", [flipped, cut, empty])
def test_a_file_that_came_altered_is_fetched_again(server, whole, tmp_path, altered):
    content, digest = whole
    etag = {"ETag": f'"{digest}"'}
    asked = Answer(200, altered(content), etag), Answer(200, content, etag)
    path = tmp_path / "version.spnode"
    server.answers += asked
    with Client(server.url) as client:
        client.models.download("m@latest", path)
    assert path.read_bytes() == content
    server.answers += asked
    said = rf'came altered.* expected "{digest}"'
    with (
        Client(server.url, retries=0) as client,
        pytest.raises(Unreachable, match=said),
    ):
        client.models.download("m@latest", tmp_path / "other.spnode")
    assert list(tmp_path.iterdir()) == [path]


def test_the_async_client_fetches_it_again_too(server, whole, tmp_path):
    content, digest = whole
    etag = {"ETag": f'"{digest}"'}
    server.answers += [
        Answer(200, flipped(content), etag),
        Answer(200, content, etag),
    ]
    path = tmp_path / "version.spnode"

    async def use():
        async with AsyncClient(server.url) as client:
            await client.models.download("m@latest", path)

    asyncio.run(use())
    assert path.read_bytes() == content
