"""Engines that compile as a server does: with all optimisations, in own processes."""

import dataclasses
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from services.blobs import Blobs
from services.rollouts.engine import Engine
from services.rollouts.tiles import TILES, same_bits
from services.settings import Settings
from spnode_core import artifact
from spnode_core.neighbours import Neighbours
from spnode_core.spec import BilinearSpec, HurwitzSpec, RelaxationSpec, ResidualSpec
from tests.core.models import GRID, MASS, RATES, small_surrogate
from tests.services.test_rollouts_engine import LINEAR, arrays, some

AS_TESTS_COMPILE = ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS")


def wide_model(data: Path, *, with_samples: bool = False) -> tuple[Engine, str]:
    """An engine, and a model of two networks of 2 x 100 in it."""
    settings = Settings(data_folder=data)
    blobs = Blobs(settings.store_url)
    engine = Engine(settings, blobs)
    wide = {
        "latent": 8,
        "conserved": MASS,
        "nonlinear": RelaxationSpec(width=100, depth=2),
        "autoencoder": ResidualSpec(width=100, depth=2),
    }
    surrogate = small_surrogate(normalisation=LINEAR, precision="mixed", **wide)
    if with_samples:
        z = np.random.default_rng(0).normal(size=(512, 8))
        kept = Neighbours.of(jnp.asarray(z), jnp.ones(8))
        domain = surrogate.signature.domain.model_copy(update={"neighbours": 512})
        signature = surrogate.signature.model_copy(update={"domain": domain})
        surrogate = dataclasses.replace(surrogate, signature=signature, neighbours=kept)
    digest = artifact.save(surrogate, data / "wide")
    blobs.put(f"artifacts/{digest}", data / "wide")
    return engine, digest


def proven_tiles(data: Path) -> list[list[int]]:
    """Tiles of a wide model, stored in the folder: on the grid, at its end, beside it."""
    engine, digest = wide_model(data)
    engine.warm(digest)
    while engine.idle():
        pass
    tiles = list(map(list, engine.resident.get(digest).tiles.values()))
    # Large tiles, where they are admitted, change no bits; nor do several at a time.
    for operation in ("rollout", "vjp"):
        given = arrays(operation, 300, GRID[1:])
        before = engine.run(operation, digest, given)
        while engine.idle():
            pass
        assert same_bits(before, engine.run(operation, digest, given))
        for start, stop in ((7, 8), (40, 110)):
            part = engine.run(operation, digest, some(given, start, stop))
            rows = {name: array[start:stop] for name, array in before.items()}
            assert same_bits(rows, part)
    return tiles


def tiles_by_operation(data: Path, kind: str) -> dict[str, list[int]]:
    """Tiles of a model that has another matrix beside its networks."""
    jax.config.update("jax_enable_x64", True)
    settings = Settings(data_folder=data)
    blobs = Blobs(settings.store_url)
    fields = {"latent": 8, "autoencoder": ResidualSpec(width=64), "conserved": MASS}
    if kind == "bilinear":
        fields |= {"linear": HurwitzSpec(rates=RATES), "nonlinear": BilinearSpec()}
    surrogate = small_surrogate(normalisation=LINEAR, precision="mixed", **fields)
    digest = artifact.save(surrogate, data / "model")
    blobs.put(f"artifacts/{digest}", data / "model")
    engine = Engine(settings, blobs)
    operations = ("rollout", "vjp", "objective")
    for operation in operations:
        engine.run(operation, digest, arrays(operation, 3, GRID[1:]))
    while engine.idle():
        pass
    tiles = engine.resident.get(digest).tiles
    return {shape.operation: list(each) for shape, each in tiles.items()}


def said_by(script, *args):
    """What a process prints that compiles as a server does."""
    served = {k: v for k, v in os.environ.items() if k not in AS_TESTS_COMPILE}
    run = subprocess.run(
        [sys.executable, "-c", f"from {__name__} import *\n{script}", *args],
        env={**served, "JAX_ENABLE_X64": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def handed_over(data: Path) -> float:
    """How often one row waits for another thread, a call, of a model with samples."""
    engine, digest = wide_model(data, with_samples=True)
    engine.warm(digest)
    while engine.idle():
        pass
    given = arrays("rollout", 1, GRID[1:])
    engine.run("rollout", digest, given)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    for _ in range(50):
        engine.run("rollout", digest, given)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before) / 50


def test_one_row_is_computed_in_the_thread_that_asks(tmp_path):
    script = "print(json.dumps(handed_over(Path(sys.argv[1]))))"
    assert said_by(script, tmp_path) < 0.5


def test_a_wide_model_in_float32_uses_the_smallest_tile(tmp_path):
    script = "print(json.dumps(proven_tiles(Path(sys.argv[1]))))"
    assert_said_once(script, tmp_path, [list(TILES)] * 3)


@pytest.mark.parametrize("kind", ["modal", "bilinear"])
def test_gradients_of_one_row_use_the_smallest_tile(tmp_path, kind):
    script = f"print(json.dumps(tiles_by_operation(Path(sys.argv[1]), {kind!r})))"
    operations = ("rollout", "vjp", "objective")
    assert_said_once(script, tmp_path, {name: list(TILES) for name in operations})


def assert_said_once(script, folder, expected):
    """A process says so in one of three tries.

    Two compilations of one program may round differently, once in some twenty runs: a
    small tile is kept out then. What was compiled is kept: each try has its folder.
    """
    found = []
    for number in range(3):
        own = folder / f"try-{number}"
        own.mkdir()
        found.append(said_by(script, own))
        if found[-1] == expected:
            break
    assert expected in found, found
