"""Computing that stands still ends its process; computing that is slow does not."""

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from services.rollouts.executor import InlineExecutor
from services.rollouts.standstill import Standstill

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


def test_what_computes_may_take_longer_but_not_for_ever(watched):
    standstill, ended = watched
    began = time.monotonic()
    with standstill:
        while not ended.is_set() and time.monotonic() - began < 20:
            sum(range(10_000))
    assert 3 < time.monotonic() - began < 15


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


@pytest.mark.parametrize("name", ["_computing", "_preparing"])
def test_a_gateway_that_computes_watches_both_of_its_threads(name):
    ended = threading.Event()
    executor = InlineExecutor(lambda: None, Standstill(0.5, ended.set))

    async def scenario():
        await executor.start()
        assert await getattr(executor, name).call(lambda: ended.wait(20))
        await executor.close()

    asyncio.run(scenario())
