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
def optimised():
    """Programs as a server compiles them; tests leave most optimisations out."""
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.usefixtures("optimised")
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
        tiles = engine.resident.get(digest).tiles
        assert len(tiles) == 3, "on the grid, at its end alone, and beside the grid"
        found.append(set(tiles.values()))
        if found[-1] == {TILES}:
            break
    assert {TILES} in found, found
