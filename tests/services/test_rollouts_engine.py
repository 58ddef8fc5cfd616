import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from services.blobs import Blobs, Damaged
from services.errors import NotFound, Unavailable
from services.rollouts.engine import Engine
from services.rollouts.executor import NotReady
from services.rollouts.loaded import Form
from services.rollouts.remembered import Remembered, example_plan
from services.rollouts.resident import Resident
from services.rollouts.shapes import Shape, bucket
from services.rollouts.tiles import TILES, larger_tiles, same_bits
from services.rollouts.work import Variant
from services.settings import Settings
from spnode_core import artifact
from tests.core.models import GRID, MASS, random_states, small_surrogate

LINEAR = dict.fromkeys(("a", "b", "c", "p0", "u0"), "linear")
TIMES = np.geomspace(2e-3, 5e3, 9)
OPERATIONS = ("rollout", "latent", "jvp", "vjp", "hvp", "objective")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Settings, the store, and the digests of two artifacts in it."""
    folder = tmp_path_factory.mktemp("engine")
    settings = Settings(data_folder=folder / "data")
    jax.config.update("jax_enable_x64", True)
    blobs = Blobs(settings.store_url)
    digests = {}
    for name, options in (
        ("float64", {"conserved": MASS}),
        ("mixed", {"precision": "mixed", "seed": 1}),
    ):
        path = folder / name
        surrogate = small_surrogate(normalisation=LINEAR, **options)
        digests[name] = artifact.save(surrogate, path)
        blobs.put(f"artifacts/{digests[name]}", path)
    return settings, blobs, digests


@pytest.fixture(scope="module")
def engine(stored):
    settings, blobs, _ = stored
    return Engine(settings, blobs)


def arrays(operation, rows, times=TIMES):
    x0 = random_states(rows, seed=7)
    draws = np.random.default_rng(0)
    found = {"x0": x0, "times": times}
    shape = (rows, len(times), 3)
    if operation in ("jvp", "hvp"):
        found["tangents.x0"] = draws.normal(size=(rows, 5, 3))
    if operation == "vjp":
        found["cotangents"] = draws.normal(size=(rows, 3, *shape[1:]))
    if operation == "hvp":
        found["cotangents"] = draws.normal(size=shape)
    if operation == "objective":
        found["observations"] = draws.normal(size=shape)
        found["weights"] = draws.uniform(size=shape)
    return found


def some(given, start, stop):
    shared = ("times",)
    return {
        name: array if name in shared else array[start:stop]
        for name, array in given.items()
    }


@pytest.mark.parametrize("name", ["float64", "mixed"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_bits_depend_on_neither_neighbours_nor_size(engine, stored, name, operation):
    digest = stored[2][name]
    given = arrays(operation, 45)
    whole = engine.run(operation, digest, given)
    for _ in range(2):
        for start, stop in ((0, 1), (44, 45), (3, 5), (1, 9), (5, 38), (0, 45)):
            part = engine.run(operation, digest, some(given, start, stop))
            for field, array in part.items():
                assert array.tobytes() == whole[field][start:stop].tobytes(), field
        # Once more with whichever smaller tiles turn out to give the same bits.
        while engine.idle():
            pass


def test_bits_are_the_same_after_a_restart(engine, stored):
    settings, blobs, digests = stored
    again = Engine(settings, blobs)
    for operation in ("rollout", "hvp"):
        given = arrays(operation, 3)
        one = engine.run(operation, digests["mixed"], given)
        other = again.run(operation, digests["mixed"], given)
        assert all(
            array.tobytes() == other[name].tobytes() for name, array in one.items()
        )


@pytest.mark.parametrize("operation", ["rollout", "vjp"])
def test_throughput_gives_the_same_numbers_up_to_rounding(engine, stored, operation):
    digest, given = stored[2]["float64"], arrays(operation, 300)
    usual = engine.run(operation, digest, given)
    fast = engine.run(operation, digest, given, Variant(throughput=True))
    for name, array in usual.items():
        np.testing.assert_allclose(fast[name], array, rtol=1e-8, atol=1e-10)


def test_networks_in_float64_are_made_on_request_and_counted(stored):
    settings, blobs, digests = stored
    engine = Engine(settings, blobs)
    given = arrays("rollout", 3)
    usual = engine.run("rollout", digests["mixed"], given)["x"]
    before = engine.resident.size_bytes
    double = engine.run("rollout", digests["mixed"], given, Variant(double=True))["x"]
    assert engine.resident.size_bytes > before
    assert 0 < np.abs(double - usual).max() < 1e-3 * np.abs(usual).max()


@pytest.mark.parametrize("fits", [8, 1])
def test_out_of_memory_smaller_tiles_are_tried_and_then_it_is_said(stored, fits):
    settings, blobs, digests = stored
    engine = Engine(settings, blobs)
    given = arrays("rollout", 20)
    expected = engine.run("rollout", digests["float64"], given)["x"]
    functions = engine.resident.get(digests["float64"]).form(Variant()).functions
    ((program, compiled),) = functions.items()

    def limited(leaves, plan, rows):
        if len(rows["x0"]) > fits:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return compiled(leaves, plan, rows)

    functions[program] = limited
    if fits == 8:
        found = engine.run("rollout", digests["float64"], given)["x"]
        np.testing.assert_allclose(found, expected, rtol=1e-10)
        return
    with pytest.raises(Unavailable, match="too little memory"):
        engine.run("rollout", digests["float64"], given)
    functions[program] = compiled
    engine.run("rollout", digests["float64"], given)


def test_where_a_model_does_not_fit_others_leave_and_then_it_is_said(
    stored, monkeypatch
):
    settings, blobs, digests = stored
    engine = Engine(settings, blobs)
    engine.prepare("rollout", digests["float64"], arrays("rollout", 1))
    put, fits = Form.of, [False, True]

    def limited(surrogate):
        if not fits.pop(0):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return put(surrogate)

    monkeypatch.setattr(Form, "of", limited)
    engine.run("rollout", digests["mixed"], arrays("rollout", 1))
    assert engine.resident.digests == [digests["mixed"]]
    fits += [False, False]
    with pytest.raises(Unavailable, match="too little memory") as refused:
        engine.run("rollout", digests["float64"], arrays("rollout", 1))
    assert refused.value.code == "out_of_memory"


def test_all_devices_compute_and_give_the_same_bits(stored):
    settings, _, digests = stored
    script = f"""
import hashlib, sys
from pathlib import Path
import jax
from services.blobs import Blobs
from services.rollouts.engine import Engine
from services.settings import Settings
from tests.services.test_rollouts_engine import arrays
settings = Settings(data_folder=Path({str(settings.data_folder)!r}))
engine = Engine(settings, Blobs(settings.store_url))
digest = {digests["float64"]!r}
for rows in (100, 3):
    x = engine.run("rollout", digest, arrays("rollout", rows))["x"]
    print(hashlib.sha256(x.tobytes()).hexdigest())
    while engine.idle():
        pass
used = {{device for _, _, device in engine.resident.get(digest).compiled}}
print(len(jax.local_devices()), len(used))
"""

    def printed(count):
        flag = f"--xla_force_host_platform_device_count={count}"
        run = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout.split()

    one, two = printed(1), printed(2)
    assert one[:2] == two[:2]
    assert (one[2:], two[2:]) == (["1", "1"], ["2", "2"])


def test_small_tiles_are_used_once_proven(engine, stored):
    digest = stored[2]["mixed"]
    engine.warm(digest)
    while engine.idle():
        pass
    tiles = engine.resident.get(digest).tiles.values()
    assert all(TILES[-1] in each for each in tiles)
    assert any(len(each) > 1 for each in tiles)


@pytest.mark.parametrize("name", ["mixed", "float64"])
@pytest.mark.parametrize("operation", ["rollout", "vjp"])
def test_large_tiles_change_no_bits(stored, name, operation):
    settings, blobs, digests = stored
    engine = Engine(settings, blobs)
    model, given = engine.resident.get(digests[name]), arrays(operation, 150)
    before = engine.run(operation, digests[name], given)
    ((shape, tiles),) = model.tiles.items()
    assert tiles == TILES[-1:]
    assert model.grown == {shape}
    while engine.idle():
        pass
    tried = {tile for _, tile, _ in model.compiled}
    assert tried == {*TILES, *larger_tiles(operation)}
    compilations = engine.counters.compilations
    after = engine.run(operation, digests[name], given)
    assert same_bits(before, after)
    assert engine.counters.compilations == compilations


def test_a_warm_model_compiles_nothing_for_its_own_times(engine, stored):
    digest = stored[2]["float64"]
    engine.warm(digest)
    while engine.idle():
        pass
    before = engine.counters.compilations
    for rows in (1, 2, 3, 8, 20, 33, 64):
        for times in (GRID[1:], GRID[-1:], GRID[1:] * 0.99):
            engine.run("rollout", digest, arrays("rollout", rows, times))
    assert engine.counters.compilations == before


MIXED_LOAD = (
    ("rollout", TIMES, Variant()),
    ("rollout", np.geomspace(1e-2, 50.0, 21), Variant(throughput=True)),
    ("rollout", GRID[-1:], Variant(double=True)),
    ("vjp", GRID[1:], Variant()),
)


def test_after_a_restart_nothing_that_was_asked_for_is_compiled_again(stored, tmp_path):
    settings, blobs, digests = stored
    settings = settings.model_copy(update={"data_folder": tmp_path})
    first = Engine(settings, blobs)
    for operation, times, variant in MIXED_LOAD:
        given = arrays(operation, 5, times)
        with pytest.raises(NotReady):
            first.run(operation, digests["mixed"], given, variant, only_ready=True)
        first.prepare(operation, digests["mixed"], given, variant)
        first.run(operation, digests["mixed"], given, variant, only_ready=True)
    assert first.counters.compilations_on_request >= len(MIXED_LOAD)

    # A version with other weights is ready for what its predecessor was asked.
    again = Engine(settings, blobs)
    surrogate = small_surrogate(normalisation=LINEAR, precision="mixed", seed=9)
    successor = artifact.save(surrogate, tmp_path / "successor")
    blobs.put(f"artifacts/{successor}", tmp_path / "successor")
    for digest in (digests["mixed"], successor):
        again.warm(digest)
        for rows in (1, 5, 40):
            for operation, times, variant in MIXED_LOAD:
                given = arrays(operation, rows, times)
                again.run(operation, digest, given, variant, only_ready=True)
    while again.idle():
        pass
    for digest in (digests["mixed"], successor):
        for operation, times, variant in MIXED_LOAD:
            given = arrays(operation, 1, times)
            again.run(operation, digest, given, variant, only_ready=True)
    assert again.counters.compilations_on_request == 0


def test_example_plans_compile_to_what_real_ones_take(engine, stored):
    model = engine.resident.get(stored[2]["mixed"])
    for times in (GRID[1:], TIMES, GRID[-1:], np.array([1e-9])):
        (plan, *_) = model.steps.planned(times, None).by_device
        given = {"x0": random_states(1), "times": times}
        shape = Shape.of("rollout", plan, {"x0": given["x0"]}, Variant())
        example = jax.device_put(example_plan(model.grid, shape))
        assert jax.tree.structure(plan) == jax.tree.structure(example)
        kinds = [
            [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(each)]
            for each in (plan, example)
        ]
        assert kinds[0] == kinds[1]


def test_shapes_that_cannot_be_read_are_compiled_when_asked_for(stored, tmp_path):
    remembered = Remembered(tmp_path / "shapes")
    shape = Shape("rollout", (True, 13, 14, 13), (("x0", (3,)),), Variant())
    remembered.add("some", shape)
    assert remembered.shapes("some") == [shape]
    for content in ("{", "[]", '{"shapes": [{"plan": 3}]}', '{"shapes": [4]}'):
        (tmp_path / "shapes" / "some.json").write_text(content)
        assert remembered.shapes("some") == []
    assert remembered.shapes("other") == []


def test_a_rollout_is_that_of_the_library(engine, stored, tmp_path):
    _, blobs, digests = stored
    path = tmp_path / "artifact"
    blobs.download(f"artifacts/{digests['float64']}", path)
    given = arrays("rollout", 3)
    expected = artifact.load(path).rollout(given["x0"], TIMES)
    found = engine.run("rollout", digests["float64"], given)["x"]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_an_unknown_and_a_damaged_artifact_are_told_apart(engine, stored):
    _, blobs, _ = stored
    with pytest.raises(NotFound):
        engine.run("rollout", "0" * 64, arrays("rollout", 1))
    digest = blobs.put_content("artifacts", b"no artifact at all")
    with pytest.raises(Damaged, match="cannot be served"):
        engine.run("rollout", digest, arrays("rollout", 1))


def test_the_least_recently_used_model_leaves_first():
    class Model:
        size_bytes = 40

    loaded = []
    resident = Resident(lambda digest: loaded.append(digest) or Model(), 100)
    for digest in ("a", "b", "a", "c", "a", "b"):
        resident.get(digest)
    assert loaded == ["a", "b", "c", "b"]
    assert resident.digests == ["a", "b"]
    assert resident.size_bytes == 80
    resident.pin(frozenset({"a"}))
    for digest in ("d", "e"):
        resident.get(digest)
    assert resident.digests == ["a", "e"]
    assert resident.find("d") is None
    assert resident.evictions == 4


def test_buckets_hold_their_count_and_waste_at_most_half():
    for own in (0, 50, 51):
        for count in range(1, 500):
            padded = bucket(count, own)
            assert count <= padded <= max(1.5 * count, count + 1)
            assert bucket(padded, own) == padded
    assert bucket(50, 50) == 50
    assert bucket(0, 50) == 0
