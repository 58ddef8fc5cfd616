import asyncio
import time

import pytest

from services.errors import DeadlinePassed
from services.rollouts.deadlines import Deadlines


def test_each_future_fails_at_its_own_deadline():
    async def scenario():
        deadlines, now = Deadlines(), time.monotonic()
        late, soon, never, done = (asyncio.Future() for _ in range(4))
        for future, seconds in ((never, 60), (late, 0.4), (soon, 0.1), (done, 0.1)):
            deadlines.add(future, now + seconds)
        done.set_result("done")
        with pytest.raises(DeadlinePassed):
            await soon
        assert time.monotonic() >= now + 0.1
        assert not late.done()
        with pytest.raises(DeadlinePassed):
            await late
        assert time.monotonic() >= now + 0.4
        assert not never.done()
        assert done.result() == "done"

    asyncio.run(scenario())


def test_a_deadline_that_has_passed_fails_at_once_and_one_taken_back_never():
    async def scenario():
        deadlines = Deadlines()
        passed, taken_back = asyncio.Future(), asyncio.Future()
        deadlines.add(taken_back, time.monotonic() + 0.1)
        deadlines.remove(taken_back)
        deadlines.add(passed, time.monotonic() - 1)
        with pytest.raises(DeadlinePassed):
            await passed
        await asyncio.sleep(0.3)
        assert not taken_back.done()

    asyncio.run(scenario())
