"""Engines that compile as a server does: with all optimisations, in their own folder."""

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from services.blobs import Blobs
from services.rollouts.engine import Engine
from services.rollouts.tiles import TILES
from services.settings import Settings
from spnode_core import artifact
from spnode_core.spec import RelaxationSpec, ResidualSpec
from tests.core.models import small_surrogate
from tests.services.test_rollouts_engine import LINEAR


@pytest.fixture
def as_served(monkeypatch):
    """Programs as a server compiles them, in a folder that each engine chooses."""
    jax.config.update("jax_enable_x64", True)
    kept = jax.config.jax_compilation_cache_dir
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_compilation_cache_dir", kept)
    compilation_cache.reset_cache()


@pytest.mark.usefixtures("as_served")
def test_a_wide_model_in_float32_uses_the_smallest_tile(tmp_path):
    settings = Settings(data_folder=tmp_path / "data")
    blobs = Blobs(settings.store_url)
    wide = {
        "nonlinear": RelaxationSpec(width=100, depth=2),
        "autoencoder": ResidualSpec(width=100, depth=2),
    }
    surrogate = small_surrogate(normalisation=LINEAR, precision="mixed", **wide)
    digest = artifact.save(surrogate, tmp_path / "wide")
    blobs.put(f"artifacts/{digest}", tmp_path / "wide")
    found = []
    # Two compilations of one program may round differently, once in some twenty runs: a
    # small tile is kept out then. What was compiled is kept: each try has its folder.
    for number in range(3):
        compilation_cache.reset_cache()
        folder = tmp_path / f"try-{number}"
        engine = Engine(settings.model_copy(update={"data_folder": folder}), blobs)
        engine.warm(digest)
        while engine.idle():
            pass
        assert any((folder / "compiled").iterdir()), "a restart compiles nothing again"
        tiles = engine.resident.get(digest).tiles
        assert len(tiles) == 3, "on the grid, at its end alone, and beside the grid"
        found.append(set(tiles.values()))
        if found[-1] == {TILES}:
            break
    assert {TILES} in found, found


@pytest.mark.usefixtures("as_served")
def test_a_folder_that_jax_was_told_of_comes_first(tmp_path, monkeypatch):
    settings = Settings(data_folder=tmp_path / "data")
    Engine(settings, Blobs(settings.store_url))
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "data" / "compiled")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "told"))
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "told"))
    Engine(settings, Blobs(settings.store_url))
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "told")
