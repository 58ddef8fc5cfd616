"""Batches that several threads compute at a time, while another one prepares."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from services.rollouts.engine import Engine
from services.rollouts.executor import NotReady
from tests.services.test_rollouts_engine import arrays, some, stored

__all__ = ["stored"]
ASKED = [
    (operation, name, rows)
    for operation in ("rollout", "vjp")
    for name in ("float64", "mixed")
    for rows in (1, 3, 40, 150)
]


@pytest.fixture(scope="module")
def alone(stored):
    """What an engine gives that computes one batch after the other."""
    settings, blobs, digests = stored
    engine = Engine(settings, blobs)
    return {
        (operation, name, rows): engine.run(
            operation, digests[name], some(arrays(operation, 150), 0, rows)
        )
        for operation, name, rows in ASKED
    }


def test_the_bits_are_those_of_one_batch_after_the_other(stored, alone):
    settings, blobs, digests = stored
    engine = Engine(settings, blobs)
    ended = threading.Event()
    wanted: list = []

    def prepare():
        while not ended.wait(0.001):
            while wanted:
                engine.prepare(*wanted.pop())
            engine.idle()

    def compute(seed):
        draws = np.random.default_rng(seed)
        for _ in range(25):
            operation, name, rows = ASKED[draws.integers(len(ASKED))]
            given = some(arrays(operation, 150), 0, rows)
            asked = (operation, digests[name], given)
            while True:
                try:
                    found = engine.run(*asked, only_ready=True)
                except NotReady:
                    wanted.append(asked)
                    ended.wait(0.01)
                else:
                    break
            for field, array in alone[operation, name, rows].items():
                assert found[field].tobytes() == array.tobytes(), (operation, field)

    preparing = threading.Thread(target=prepare)
    preparing.start()
    try:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(compute, range(4)))
    finally:
        ended.set()
        preparing.join()
    assert engine.counters.batches == 4 * 25
