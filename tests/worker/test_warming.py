"""What a rollout worker does about models that it cannot load, and about a hang."""

import threading
import types

import pytest

from services.blobs import Damaged
from services.errors import Unavailable
from services.rollouts.standstill import Standstill
from services.settings import Settings
from worker.rollouts import Batches


class Engine:
    """Loads what it is told to, and stands still where it idles."""

    error: Exception | None = None

    def __init__(self):
        self.go_on = threading.Event()

    def warming(self, digest):
        if self.error is not None:
            raise self.error
        return [self.go_on.clear]

    def idle(self):
        return self.go_on.wait(20)

    def pin(self, digests):
        pass


@pytest.fixture
def batches():
    context = types.SimpleNamespace(
        settings=Settings(redis_url="redis://127.0.0.1:1/0"),
        warm=threading.Event(),
        stopping=threading.Event(),
        beat=lambda: None,
    )
    batches = Batches(context)
    batches._engine = Engine()
    batches._patient_until = float("inf")
    return batches


def test_a_store_that_is_away_is_asked_again_before_a_worker_says_that_it_is_warm(
    batches,
):
    batches._engine.error = Unavailable("the store does not answer")
    assert batches._warming("d") == []
    assert batches._warm == set()
    batches._say_warm()
    assert not batches._context.warm.is_set()
    batches._engine.error = None
    assert len(batches._warming("d")) == 1
    batches._say_warm()
    assert batches._context.warm.is_set()


def test_a_store_that_stays_away_keeps_no_worker_from_serving(batches):
    batches._engine.error = Unavailable("the store does not answer")
    batches._warming("d")
    batches._patient_until = 0.0
    batches._say_warm()
    assert batches._context.warm.is_set()


@pytest.mark.parametrize(
    "error", [Damaged("it is damaged"), Unavailable("too large", code="out_of_memory")]
)
def test_what_can_never_be_loaded_is_left_alone(batches, error):
    batches._engine.error = error
    assert batches._warming("d") == []
    assert batches._warm == {"d"}
    batches._say_warm()
    assert batches._context.warm.is_set()


@pytest.mark.parametrize("how", ["idle", "step"])
def test_a_preparation_that_stands_still_ends_the_worker(batches, how):
    batches.standstill = Standstill(0.5, batches._engine.go_on.set)
    batches.standstill.start()
    if how == "idle":
        assert batches._has_idled()
    else:
        batches._do(batches._engine.idle)
    assert batches._engine.go_on.is_set()
    batches.standstill.close()
