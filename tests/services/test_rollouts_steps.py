"""Rollouts of any number of equal steps: as in the library, in bounded memory."""

import jax
import numpy as np
import pytest

from services.blobs import Blobs
from services.rollouts.engine import Engine
from services.rollouts.shapes import Shape
from services.rollouts.work import Variant
from services.settings import MIB, Settings
from spnode_core import artifact
from spnode_core.errors import InvalidInput
from spnode_core.spec import UniformStepsSpec
from spnode_core.stepping import kept_bytes
from tests.core.models import random_states, small_surrogate


@pytest.fixture(scope="module")
def uniform(tmp_path_factory):
    """A surrogate of endless equal steps, the digest of its artifact, and its store."""
    jax.config.update("jax_enable_x64", True)
    folder = tmp_path_factory.mktemp("uniform")
    settings = Settings(data_folder=folder / "data")
    linear = dict.fromkeys("abc", "linear")
    steps = UniformStepsSpec(step=0.25)
    surrogate = small_surrogate(normalisation=linear, steps=steps, seed=2)
    digest = artifact.save(surrogate, folder / "artifact")
    blobs = Blobs(settings.store_url)
    blobs.put(f"artifacts/{digest}", folder / "artifact")
    return surrogate, digest, settings, blobs


def test_rollouts_of_equal_steps_are_those_of_the_library(uniform):
    surrogate, digest, settings, blobs = uniform
    engine = Engine(settings, blobs)
    x0 = random_states(2)
    every = surrogate.rollout(x0, 0.25 * np.arange(1, 41))
    for count in range(1, 41):
        times = np.array([0.25 * count])
        found = engine.run("rollout", digest, {"x0": x0, "times": times})["x"]
        np.testing.assert_allclose(
            found[:, 0], every[:, count - 1], rtol=1e-9, atol=1e-12, err_msg=str(count)
        )


def test_long_rollouts_run_in_small_tiles_and_endless_ones_are_refused(uniform):
    _, digest, settings, blobs = uniform
    engine = Engine(settings.model_copy(update={"tile_bytes": MIB}), blobs)
    given = {"x0": random_states(3)}

    def run(steps):
        times = np.array([0.25 * steps])
        engine.run("rollout", digest, given | {"times": times})
        return next(reversed(engine.resident.get(digest).tiles.values()))

    assert run(100) == (32,)
    assert run(1500) == (8,)
    with pytest.raises(InvalidInput, match=r"times: .*SPNODE_TILE_BYTES"):
        run(100_000)


def test_memory_of_a_row_follows_directions_and_not_times_of_cotangents(uniform):
    _, digest, settings, blobs = uniform
    model = Engine(settings, blobs).resident.get(digest)

    def shape(operation, outputs, **rows):
        axes = (
            ("x0", (3,)),
            *((name.replace("_", "."), a) for name, a in rows.items()),
        )
        return Shape(operation, (True, outputs, outputs, 1), axes, Variant())

    one = model.tile_bytes(shape("rollout", 1000), 1)
    assert one == pytest.approx(model.tile_bytes(shape("rollout", 2000), 1) / 2)
    assert one == model.tile_bytes(shape("rollout", 1000), 8) / 8
    hvp = {"tangents_x0": (1, 3), "cotangents": (1000, 3)}
    # A few states and units for each step, whatever shape the cotangents have.
    assert model.tile_bytes(shape("hvp", 1000, **hvp), 1) < 200 * one
    vjp = [
        model.tile_bytes(shape("vjp", 1000, cotangents=(many, 1000, 3)), 1)
        for many in (1, 11)
    ]
    assert vjp[1] - vjp[0] == 10 * one


def test_gradients_of_long_rollouts_keep_states_alone(uniform, monkeypatch):
    surrogate, digest, settings, blobs = uniform
    given = {"x0": random_states(2), "times": np.array([0.25 * 300])}
    given["cotangents"] = np.ones((2, 1, 1, 3))
    kept = Engine(settings, blobs).run("vjp", digest, given)
    # As many steps as are compiled for 300.
    least = kept_bytes(surrogate, 1, 384)
    for module in ("loaded", "operations"):
        monkeypatch.setattr(f"services.rollouts.{module}.MOST_KEPT_BYTES", least)
    engine = Engine(settings, blobs)
    again = engine.run("vjp", digest, given)
    np.testing.assert_allclose(again["gradients.x0"], kept["gradients.x0"], rtol=1e-12)
    model = engine.resident.get(digest)
    (shape,) = model.tiles
    assert shape.plan[1] == 384
    assert model.tile_bytes(shape, 1) > least > model.tile_bytes(shape, 2)


def test_plans_on_the_device_are_bounded(uniform, monkeypatch):
    monkeypatch.setattr("services.rollouts.plans._KEPT_BYTES", 1 << 16)
    _, digest, settings, blobs = uniform
    steps = Engine(settings, blobs).resident.get(digest).steps
    for count in range(1, 30):
        steps.planned(np.array([40.0 * count]), None)
    assert steps.size_bytes <= 1 << 16
    # The last one stays, whatever it takes.
    steps.planned(np.array([1e5]), None)
    assert len(steps._kept) == 1
