"""Computing that stands still ends its process; computing that is slow does not."""

import asyncio
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from services.blobs import Blobs
from services.rollouts.executor import InlineExecutor, make_executor
from services.rollouts.standstill import Standstill
from services.settings import Settings

_STANDS = """
import threading
from services.rollouts.standstill import Standstill

standstill = Standstill(1.0)
standstill.start()
with standstill:
    threading.Event().wait()
"""


@pytest.fixture
def watched():
    """A watch of a second, and an event that is set where it would end the process."""
    ended = threading.Event()
    standstill = Standstill(1.0, ended.set)
    standstill.start()
    yield standstill, ended
    standstill.close()


def test_a_process_that_stands_still_ends_and_says_why():
    done = subprocess.run(
        [sys.executable, "-c", _STANDS], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert "has stood still for 1 s: this process ends" in done.stderr


def test_what_computes_may_take_longer_but_not_for_ever():
    standstill = Standstill(10.0, longest_s=100.0)
    with standstill:
        stood = [standstill._stood(5.0, computes=True) for _ in range(21)]
        np.testing.assert_allclose(stood, 0.5 * np.arange(1, 22))
        assert standstill._stood(1.0, computes=False) == pytest.approx(11.5)
    assert standstill._stood(5.0, computes=False) == 0


def test_one_after_the_other_stands_nothing_still(watched):
    standstill, ended = watched
    for _ in range(10):
        with standstill:
            time.sleep(0.25)
        assert standstill.longest() == 0
    assert not ended.is_set()
    with standstill:
        assert ended.wait(10)
        assert standstill.longest() > 0.5


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_gateway_that_computes_watches_all_of_its_threads(number):
    ended = threading.Event()
    engine = SimpleNamespace(batches_at_a_time=2)
    executor = InlineExecutor(lambda: engine, Standstill(0.5, ended.set))

    async def scenario():
        await executor.start()
        threads = [*executor._computing, executor._preparing]
        assert await threads[number].call(lambda: ended.wait(20))
        await executor.close()

    asyncio.run(scenario())


def test_the_executor_of_a_gateway_has_the_limit_of_the_settings():
    settings = Settings(rollout_stall_seconds=7.0, executor="inline")
    executor = make_executor(settings, Blobs("memory://"))
    assert executor._standstill._limit_s == 7.0
