import jax
import numpy as np
import pytest

from services.blobs import Blobs, Damaged
from services.errors import NotFound
from services.rollouts.engine import TILES, Engine, bucket
from services.rollouts.resident import Resident
from services.settings import Settings
from spnode_core import artifact
from tests.core.models import GRID, MASS, random_states, small_surrogate

LINEAR = dict.fromkeys(("a", "b", "c", "p0", "u0"), "linear")
TIMES = np.geomspace(2e-3, 5e3, 9)
OPERATIONS = ("rollout", "latent", "jvp", "vjp")


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
    if operation == "jvp":
        found["tangents.x0"] = draws.normal(size=x0.shape)
    if operation == "vjp":
        found["cotangents"] = draws.normal(size=(rows, len(times), 3))
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


def test_small_tiles_are_used_once_proven(engine, stored):
    digest = stored[2]["mixed"]
    engine.warm(digest)
    while engine.idle():
        pass
    tiles = engine.resident.get(digest).tiles.values()
    assert all(each[-1] == TILES[-1] for each in tiles)
    assert any(len(each) > 1 for each in tiles)


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


def test_buckets_hold_their_count_and_waste_at_most_half():
    for own in (0, 50, 51):
        for count in range(1, 500):
            padded = bucket(count, own)
            assert count <= padded <= max(1.5 * count, count + 1)
            assert bucket(padded, own) == padded
    assert bucket(50, 50) == 50
    assert bucket(0, 50) == 0
