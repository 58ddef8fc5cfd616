"""Which tiles are admitted: not those that are slow, or that do not compile."""

import jax
import numpy as np
import pytest

from services.blobs import Blobs
from services.rollouts import engine as module
from services.rollouts import tiles
from services.rollouts.engine import Engine
from services.rollouts.tiles import TILES, round_alike, rows_to_compare
from services.settings import Settings
from spnode_core import artifact
from spnode_core.spec import MLPSpec, SymbolSpec
from tests.core.models import GRID, random_states, small_surrogate

GIVEN = {"x0": random_states(3, seed=7), "times": GRID[1:]}


def engine_of(folder, **fields):
    """An engine with one model, its digest, and the model itself."""
    jax.config.update("jax_enable_x64", True)
    settings = Settings(data_folder=folder / "data")
    blobs = Blobs(settings.store_url)
    linear = dict.fromkeys("abc", "linear")
    surrogate = small_surrogate(normalisation=linear, **fields)
    digest = artifact.save(surrogate, folder / "artifact")
    blobs.put(f"artifacts/{digest}", folder / "artifact")
    return Engine(settings, blobs), digest, surrogate


def admitted(engine, digest):
    """The tiles of the only shape, when none is left to try."""
    while engine.idle():
        pass
    (found,) = engine.resident.get(digest).tiles.values()
    return found


def test_a_slow_tile_is_not_used(tmp_path, monkeypatch):
    engine, digest, _ = engine_of(tmp_path)
    monkeypatch.setattr(tiles, "is_quicker", lambda one, usual, by: False)
    before = engine.run("rollout", digest, GIVEN)
    assert admitted(engine, digest) == TILES[-1:]
    assert engine.run("rollout", digest, GIVEN)["x"].tobytes() == before["x"].tobytes()


@pytest.mark.parametrize("slow", [{64}, {256}, {8}, set()])
def test_larger_tiles_are_used_where_they_are_quicker(slow, tmp_path, monkeypatch):
    engine, digest, _ = engine_of(tmp_path)
    given = GIVEN | {"x0": random_states(300, seed=7)}

    def timed(one, usual, by):
        (tile, rows), (largest, many) = one.args, usual.args
        # A larger one is to be quicker for as many rows.
        same = len(rows["x0"]) == len(many["x0"])
        assert (by < 1.0) == same == (tile > largest)
        return tile not in slow

    monkeypatch.setattr(tiles, "is_quicker", timed)
    # As this model's tiles of more than 32 rows round in some versions of XLA.
    monkeypatch.setattr(module, "round_alike", lambda *_: True)
    engine.run("rollout", digest, given)
    assert {*admitted(engine, digest)} == {2, 8, 32, 64, 256} - slow


def test_a_tile_that_does_not_compile_is_not_used(tmp_path, monkeypatch, caplog):
    engine, digest, _ = engine_of(tmp_path)
    engine.run("rollout", digest, GIVEN)
    computed = engine._tile

    def failing(model, shape, plan, given, device):
        if len(given["x0"]) == 2:
            raise jax.errors.JaxRuntimeError("UNIMPLEMENTED: no such operation")
        return computed(model, shape, plan, given, device)

    monkeypatch.setattr(engine, "_tile", failing)
    assert 2 not in admitted(engine, digest)
    assert "tiles of 2 rows are not used: UNIMPLEMENTED" in caplog.text
    assert np.isfinite(engine.run("rollout", digest, GIVEN)["x"]).all()


def test_a_tile_that_rounds_one_row_of_many_otherwise_is_not_used():
    rows = {"x0": np.arange(1024.0)[:, None]}

    def other(odd):
        return lambda some: {"x": np.where(some["x0"] == odd, 0.5, some["x0"])}

    def alike(odd):
        return round_alike(lambda some: {"x": some["x0"]}, other(odd), rows, 32)

    assert alike(-1.0)
    assert not alike(7.0)
    assert not alike(1023.0)
    assert rows_to_compare(8) == 1024
    assert rows_to_compare(10**9) == TILES[-1]


@pytest.mark.parametrize("throughput", [False, True])
def test_few_rows_of_a_spectral_model_are_computed(tmp_path, throughput, caplog):
    symbol = SymbolSpec(length=6.0, coefficients=(-0.5, 1.0, 0.2))
    fields = {"linear": symbol, "nonlinear": MLPSpec(width=8, depth=1)}
    engine, digest, surrogate = engine_of(tmp_path, **fields)
    given = GIVEN | {"x0": GIVEN["x0"][:1]}
    variant = module.Variant(throughput=throughput)
    found = engine.run("rollout", digest, given, variant)["x"]
    admitted(engine, digest)
    again = engine.run("rollout", digest, given, variant)["x"]
    expected = surrogate.rollout(given["x0"], GRID[1:])
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(again, expected, rtol=1e-9)
    assert "are not used" not in caplog.text
