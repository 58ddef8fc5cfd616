"""What a rollout worker makes of the message of a batch."""

import contextlib

import numpy as np
import pytest
import redis

from services.errors import Unavailable, WorkersDied
from services.rollouts import remote_worker
from services.rollouts.executor import NotReady
from services.rollouts.failures import error_of
from services.rollouts.frames import pack, unpack
from services.rollouts.remote_worker import serve_batch
from spnode_core.errors import InvalidInput
from tests.api.deployment import deployed

X0 = np.ones((3, 2))
MESSAGE = {"id": "one", "reply": "spnode:replies:test"}


@pytest.fixture(scope="module")
def broker():
    with deployed() as empty, redis.Redis.from_url(empty.settings.redis_url) as client:
        yield client


@pytest.fixture
def serve(broker):
    """Serve a batch that waits, and return the fields of the reply, if there is one."""
    broker.flushall()
    fields = {"operation": "rollout", "digest": "d", "variant": {}}
    broker.set("spnode:batch:one", pack(fields, {"x0": X0}), px=60_000)

    def serve(engine, **choices):
        computing = contextlib.nullcontext()
        done = serve_batch(MESSAGE, engine, broker, computing=computing, **choices)
        reply = broker.lpop(MESSAGE["reply"])
        return done, reply and unpack(reply)[0]

    return serve


class Engine:
    """Doubles what it is given, and does something before."""

    calls = 0

    def __init__(self, before=lambda only_ready: None):
        self.before = before

    def prepare(self, *_):
        pass

    def run(self, operation, digest, arrays, variant, *, only_ready=False):
        self.calls += 1
        self.before(only_ready)
        return {"x": 2 * arrays["x0"]}


def dies(only_ready):
    raise SystemExit


def is_cold(only_ready):
    if only_ready:
        raise NotReady


def test_a_batch_that_workers_die_of_does_not_take_them_all(broker, serve):
    engine = Engine(dies)
    for _ in range(3):
        with pytest.raises(SystemExit):
            serve(engine)
        broker.delete("spnode:batch:one:lease")
    done, said = serve(engine)
    assert (done, engine.calls) == (True, 3)
    error = error_of(said["error"])
    assert isinstance(error, WorkersDied)
    assert "3 workers began" in str(error)
    assert set(broker.scan_iter("spnode:batch:*")) == set()


def test_preparing_is_a_beginning_as_well(broker, serve):
    for _ in range(3):
        with pytest.raises(SystemExit):
            serve(Engine(dies), prepare=True)
    broker.delete("spnode:batch:one:lease")
    assert isinstance(error_of(serve(Engine(dies))[1]["error"]), WorkersDied)


def test_a_batch_may_wait_for_its_model_for_as_long_as_it_takes(broker, serve):
    for _ in range(10):
        assert serve(Engine(is_cold)) == (False, None)
        assert 0 < broker.pttl("spnode:batch:one:tries") <= 60_000
        broker.delete("spnode:batch:one:lease")
    done, said = serve(Engine(is_cold), prepare=True)
    assert (done, "error" in said) == (True, False)
    assert set(broker.scan_iter("spnode:batch:*")) == set()


def test_an_answer_that_is_too_long_for_the_broker_is_refused(serve, monkeypatch):
    monkeypatch.setattr(remote_worker, "_MOST_REPLY_BYTES", 100)
    error = error_of(serve(Engine())[1]["error"])
    assert isinstance(error, InvalidInput)
    assert "fewer rows, times or directions" in str(error)


def test_an_answer_that_the_broker_has_no_room_for_is_told(broker, serve):
    def fills(only_ready):
        broker.config_set("maxmemory-policy", "noeviction")
        broker.config_set("maxmemory", broker.info("memory")["used_memory"] + 500_000)

    class Large(Engine):
        def run(self, *asked, **choices):
            super().run(*asked, **choices)
            return {"x": np.zeros(1_000_000)}

    try:
        _, said = serve(Large(fills))
    finally:
        broker.config_set("maxmemory", 0)
    assert isinstance(error_of(said["error"]), Unavailable)
    assert set(broker.scan_iter("spnode:batch:*")) == set()


def test_a_batch_that_another_worker_prepares_is_left_to_it(broker, serve):
    broker.set("spnode:batch:one:lease", b"another")
    engine = Engine()
    assert serve(engine, prepare=True) == (True, None)
    assert engine.calls == 0


def test_what_is_computed_is_watched_and_what_the_broker_takes_is_not(serve):
    held = []

    @contextlib.contextmanager
    def watching():
        held.append("begun")
        yield
        held.append("ended")

    serve(Engine(lambda only_ready: held.append("computes")), watching=watching())
    assert held == ["begun", "computes", "ended"]
