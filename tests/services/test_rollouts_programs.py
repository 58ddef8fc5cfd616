"""Compiled programs are let go of before Linux ends the process for its mappings."""

import itertools

import jax
import numpy as np
import pytest

from services.blobs import Blobs
from services.rollouts import programs
from services.rollouts.engine import Engine
from services.rollouts.executor import NotReady
from services.rollouts.programs import mappings
from services.rollouts.tiles import same_bits
from services.rollouts.work import Variant
from services.settings import Settings
from spnode_core import artifact
from spnode_core.spec import PolynomialSpec
from tests.core.models import small_surrogate
from tests.services.test_rollouts_engine import LINEAR, arrays

COUNTS = (4, 6, 8, 12, 16)
# More than one program takes.
ONE = 500


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Settings, the store, and two polynomial models of different weights in it."""
    folder = tmp_path_factory.mktemp("programs")
    settings = Settings(data_folder=folder / "data")
    jax.config.update("jax_enable_x64", True)
    blobs = Blobs(settings.store_url)
    digests = []
    for seed in (0, 1):
        cubic = PolynomialSpec(degree=3)
        surrogate = small_surrogate(normalisation=LINEAR, nonlinear=cubic, seed=seed)
        digests.append(artifact.save(surrogate, folder / "model"))
        blobs.put(f"artifacts/{digests[-1]}", folder / "model")
    return settings, blobs, digests


@pytest.fixture(scope="module")
def expected(stored):
    """Requests, and what an engine answers that keeps all programs."""
    settings, blobs, (digest, _) = stored
    engine = Engine(settings, blobs)
    asked = itertools.product(("rollout", "jvp", "hvp"), COUNTS[:2])
    given = [
        (operation, arrays(operation, 2, np.geomspace(2e-3, 5e3, count)))
        for operation, count in asked
    ]
    answers = [engine.run(operation, digest, each) for operation, each in given]
    assert engine.figures()["resident_programs"] == len(given)
    return given, answers


def limited(monkeypatch, more):
    """Let programs take so many mappings more than there are; how many that makes."""
    most = mappings() + more
    monkeypatch.setattr(programs, "most_mappings", lambda: most / programs._SHARE)
    return most


def test_mappings_are_bounded_and_answers_have_the_same_bits(
    stored, expected, monkeypatch
):
    settings, blobs, (digest, _) = stored
    most = limited(monkeypatch, 400)
    engine = Engine(settings, blobs)
    for idles in (True, False):
        for (operation, given), answer in zip(*expected, strict=True):
            assert same_bits(engine.run(operation, digest, given), answer)
            # What was asked for last stays.
            engine.run(operation, digest, given, only_ready=True)
            assert mappings() <= most + 100
            while idles and engine.idle():
                pass
            assert engine.figures()["memory_mappings"] <= most + ONE
            assert same_bits(engine.run(operation, digest, given), answer)
    assert engine.figures()["resident_programs"] < engine.counters.compilations


def test_what_is_compiled_ahead_lets_nothing_go_and_ends(stored, expected, monkeypatch):
    settings, blobs, digests = stored
    most = limited(monkeypatch, 900)
    ahead = most - 450
    monkeypatch.setattr(programs, "_SHARE_AHEAD", ahead / most)
    engine = Engine(settings, blobs)
    for digest in digests:
        engine.warm(digest)
    ready = [dict(engine.resident.get(digest).tiles) for digest in digests]
    assert 3 < len(ready[0]) + len(ready[1]) < 2 * (3 + len(expected[0]))
    compiled = engine.counters.compilations
    while engine.idle():
        pass
    assert engine.counters.compilations <= compiled + 1
    assert mappings() <= ahead + ONE
    for digest, before in zip(digests, ready, strict=True):
        assert engine.resident.get(digest).tiles.keys() == before.keys()
    # What somebody asks for has room, and its other tiles, too.
    (operation, given), answer = expected[0][0], expected[1][0]
    for _ in range(2):
        assert same_bits(engine.run(operation, digests[0], given), answer)
        while engine.idle():
            pass
    assert engine.counters.compilations > compiled + 1


def test_room_that_a_model_left_is_seen(stored, monkeypatch):
    settings, blobs, digests = stored
    engine = Engine(settings, blobs)
    for digest in digests:
        engine.warm(digest)
    monkeypatch.setattr(programs, "mappings", lambda: 0)
    engine._programs.mappings = 10**9
    assert not engine._programs.have_room_ahead
    engine.resident._limit = 1
    engine.resident.evict()
    assert engine.resident.evictions
    assert engine._programs.have_room_ahead


def test_what_was_asked_for_least_recently_is_let_go_of(stored):
    settings, blobs, (digest, other) = stored
    settings = settings.model_copy(update={"resident_programs": 4})
    engine = Engine(settings, blobs)
    engine.warm(other)
    given = [arrays("rollout", 2, np.geomspace(2e-3, 5e3, n)) for n in COUNTS]
    answers = [engine.run("rollout", digest, each) for each in given[:4]]
    engine.run("rollout", digest, given[0])
    engine.run("rollout", digest, given[4])
    assert engine.figures()["resident_programs"] == 4
    for each in (given[0], given[2], given[3], given[4]):
        engine.run("rollout", digest, each, only_ready=True)
    with pytest.raises(NotReady):
        engine.run("rollout", digest, given[1], only_ready=True)
    # The other model stays, without what was compiled for it before anybody asked.
    assert engine.resident.digests == [other, digest]
    assert not engine.resident.get(other).tiles
    for each, answer in zip(given, answers, strict=False):
        assert same_bits(engine.run("rollout", digest, each), answer)
        while engine.idle():
            pass
        assert engine.figures()["resident_programs"] <= 4


def test_variants_that_share_a_program_are_let_go_of_together(stored):
    settings, blobs, (digest, _) = stored
    engine = Engine(settings.model_copy(update={"resident_programs": 2}), blobs)
    given = [arrays("rollout", 2, np.geomspace(2e-3, 5e3, n)) for n in COUNTS]
    engine.run("rollout", digest, given[0])
    engine.run("rollout", digest, given[0], Variant(double=True))
    engine.run("rollout", digest, given[1])
    (shape,) = engine.resident.get(digest).tiles
    assert shape.plan[2] == 6
    assert engine.figures()["resident_programs"] == 1


def test_where_mappings_are_not_told_the_number_of_programs_bounds(
    stored, monkeypatch, tmp_path
):
    monkeypatch.setattr(programs, "_MAPS", tmp_path / "none")
    monkeypatch.setattr(programs, "_MOST_MAPS", tmp_path / "none")
    assert (mappings(), programs.most_mappings()) == (0, 65_530)
    settings, blobs, (digest, _) = stored
    engine = Engine(settings.model_copy(update={"resident_programs": 2}), blobs)
    for count in COUNTS[:4]:
        given = arrays("rollout", 2, np.geomspace(2e-3, 5e3, count))
        engine.run("rollout", digest, given)
    assert engine.figures()["resident_programs"] == 2
    assert engine.figures()["memory_mappings"] == 0
