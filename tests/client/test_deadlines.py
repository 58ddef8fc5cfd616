"""``timeout_s`` of a call bounds all of it, blocking and awaited."""

import asyncio
import contextlib
import socket
import threading
import time

import jax
import numpy as np
import pytest

from spnode_client import (
    AsyncClient,
    AsyncModel,
    Client,
    DeadlinePassed,
    InvalidRequest,
    Model,
    ModelVersion,
    Overloaded,
    ProblemError,
    ServiceFault,
    Unreachable,
)
from spnode_client.arrays import pack
from spnode_client.transport import CALLING
from tests.client.conftest import Answer

X0, TIMES = [1.0, 2.0], [1.0]
ABOUT = {"model": "m", "version": 1, "digest": "d", "times": np.ones(1)}
BODY = pack(
    {
        "x": np.zeros((1, 2)),
        **ABOUT,
        "jvp": np.zeros((1, 2)),
        "vjp.x0": np.zeros(2),
        "hvp.x0": np.zeros(2),
        "jacobian.x0": np.zeros((1, 2, 2)),
    }
)
NPZ = {"content-type": "application/x-npz"}
GOOD = Answer(200, BODY, NPZ)
LATE = Answer(504, b'{"code": "deadline_passed", "detail": "the deadline passed"}')
# A bound that a machine with much to do keeps, and no bound of the client but timeout_s.
SOON_S, MUCH_LATER_S = 0.6, 8.0
CALLS = {
    "rollout": (),
    "rollout_record": (),
    "jvp": ({"x0": X0},),
    "vjp": ([[0.0, 1.0]],),
    "hvp": ([[0.0, 1.0]], {"x0": X0}),
    "jacobian": (),
    "objective": ({"kind": "quadratic", "target": X0},),
}
VERSION = ModelVersion.of(
    {
        "model": "m",
        "number": 1,
        "signature": {
            "states": ["a", "b"],
            "domain": {"lower": [0.0, 0.0], "upper": [3.0, 3.0]},
        },
    }
)


class Blocking:
    def call(self, url, method="rollout", *, client=(), **options):
        with Client(url, **dict(client)) as made:
            args = (X0, TIMES, *CALLS[method])
            return getattr(made, method)("m", *args, **options)

    def of_model(self, url, method, **options):
        with Client(url) as made:
            args = (X0, TIMES, *CALLS[method])
            return getattr(Model(made, VERSION), method)(*args, **options)


class Awaited:
    def call(self, url, method="rollout", *, client=(), **options):
        async def main():
            async with AsyncClient(url, **dict(client)) as made:
                args = (X0, TIMES, *CALLS[method])
                return await getattr(made, method)("m", *args, **options)

        return asyncio.run(main())

    def of_model(self, url, method, **options):
        async def main():
            async with AsyncClient(url) as made:
                args = (X0, TIMES, *CALLS[method])
                return await getattr(AsyncModel(made, VERSION), method)(
                    *args, **options
                )

        return asyncio.run(main())


@pytest.fixture(params=[Blocking, Awaited], ids=["blocking", "awaited"])
def twin(request):
    return request.param()


def told(server):
    """The deadlines that the service was told of, in seconds."""
    return [float(asked.headers["request-timeout"]) for asked in server.asked]


@pytest.mark.parametrize("method", CALLS)
def test_every_call_tells_what_it_waits(server, twin, method):
    server.answers += [GOOD, GOOD, GOOD]
    twin.call(server.url, method, timeout_s=30)
    twin.of_model(server.url, method, timeout_s=20)
    twin.call(server.url, method)
    own, of_model, usual = told(server)
    assert 25 < own <= 30
    assert 15 < of_model <= 20
    assert usual == 60


def test_another_try_has_what_is_left(server, twin):
    server.answers += [Answer(503, after_s=0.5), Answer(break_after=-1), GOOD]
    assert twin.call(server.url, timeout_s=np.float64(30)).shape == (1, 2)
    first, second, third = told(server)
    assert second <= first - 0.5
    assert third < second


def test_it_may_be_longer_than_the_client_waits(server, twin):
    server.answers += [Answer(200, BODY, NPZ, after_s=1.0)]
    client = {"timeout_s": 0.2, "retries": 0}
    assert twin.call(server.url, timeout_s=60, client=client).shape == (1, 2)


def test_it_goes_before_what_is_sent_with_every_request(server):
    server.answers += [GOOD]
    with Client(server.url) as client:
        client.transport.http.headers["request-timeout"] = "7"
        client.rollout("m", X0, TIMES, timeout_s=30)
    assert told(server)[0] > 25


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, BODY, NPZ, after_s=3.0),
        Answer(200, BODY, NPZ, byte_s=0.05),
        Answer(503, after_s=3.0),
    ],
    ids=["silent", "trickling", "refusing"],
)
def test_it_ends_a_try(server, twin, answer):
    server.answers += [answer]
    began = time.monotonic()
    with pytest.raises(
        DeadlinePassed, match=r"within 0\.6 s: no answer from http://127"
    ):
        twin.call(server.url, timeout_s=SOON_S)
    assert SOON_S <= time.monotonic() - began < 2.5
    assert len(server.asked) == 1


def test_it_ends_a_try_whose_head_goes_on_and_on(twin):
    def answer():
        connection, _ = listening.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-A: ")
            for _ in range(100):
                connection.sendall(b"a")
                time.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer)
        thread.start()
        began = time.monotonic()
        with pytest.raises(DeadlinePassed):
            twin.call(
                f"http://127.0.0.1:{listening.getsockname()[1]}", timeout_s=SOON_S
            )
        assert time.monotonic() - began < 2.5
        thread.join(20)


def is_left():
    return any(each.name == CALLING for each in threading.enumerate())


def test_a_thread_that_was_left_ends_soon_though_bytes_still_come(server):
    server.answers += [Answer(200, BODY, NPZ, byte_s=0.05), GOOD]
    with Client(server.url) as client:
        with pytest.raises(DeadlinePassed):
            client.rollout("m", X0, TIMES, timeout_s=SOON_S)
        until = time.monotonic() + 5
        while is_left() and time.monotonic() < until:
            time.sleep(0.02)
        assert not is_left()
        assert client.rollout("m", X0, TIMES).shape == (1, 2)


def test_no_try_begins_after_it(server, twin):
    server.answers += [Answer(503)] * 100
    began = time.monotonic()
    with pytest.raises(DeadlinePassed, match="503") as late:
        twin.call(server.url, timeout_s=1.5, client={"retries": 100})
    assert time.monotonic() - began < 2.5
    assert isinstance(late.value.__cause__, Overloaded)
    count = len(server.asked)
    assert 1 < count < 10
    assert min(told(server)) > 0
    time.sleep(0.5)
    assert len(server.asked) == count


def test_whoever_is_to_come_back_after_it_is_told_at_once(server, twin):
    full = Answer(429, b'{"detail": "too often"}', {"retry-after": "30"})
    server.answers += [full]
    began = time.monotonic()
    with pytest.raises(DeadlinePassed, match="within 20 s: too often") as late:
        twin.call(server.url, timeout_s=20)
    assert time.monotonic() - began < MUCH_LATER_S
    cause = late.value.__cause__
    assert isinstance(cause, ProblemError)
    assert cause.retry_after == 30


def test_the_service_says_so_too(server, twin):
    server.answers += [LATE, LATE]
    with pytest.raises(DeadlinePassed, match="the deadline passed") as late:
        twin.call(server.url, timeout_s=30)
    assert isinstance(late.value.__cause__, ServiceFault)
    assert len(server.asked) == 2


def test_other_errors_stay_what_they_are(server, twin):
    server.answers += [Answer(422), Answer(503), Answer(break_after=-1)]
    for kind in (InvalidRequest, Overloaded, Unreachable):
        with pytest.raises(kind):
            twin.call(server.url, timeout_s=30, client={"retries": 0})


def test_nobody_there_until_it_passes(twin):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="no answer from http://127") as late:
        twin.call(f"http://127.0.0.1:{port}", timeout_s=0.5, client={"retries": 50})
    assert isinstance(late.value, DeadlinePassed)
    assert isinstance(late.value.__cause__, Unreachable)
    assert time.monotonic() - began < 1.5


def test_a_deadline_that_has_passed_is_no_request(server, twin):
    with pytest.raises(DeadlinePassed):
        twin.call(server.url, timeout_s=1e-9)
    assert server.asked == []


@pytest.mark.parametrize(
    "wrong", [0, -1, float("nan"), float("inf"), 3600.1, 10**4, "5", True, [5.0]]
)
def test_what_is_no_deadline_is_refused_before_anything_is_sent(server, twin, wrong):
    said = r"timeout_s: found .*; expected seconds, above 0 and at most 3600"
    for method in CALLS:
        with pytest.raises(ValueError, match=said):
            twin.call(server.url, method, timeout_s=wrong)
    with Client(server.url) as client:
        model = Model(client, VERSION)
        for make in (
            lambda: model.as_jax(timeout_s=wrong),
            lambda: model.as_scipy(X0, TIMES, timeout_s=wrong),
            lambda: model.at(TIMES, timeout_s=wrong),
        ):
            with pytest.raises(ValueError, match=said):
                make()
    assert server.asked == []


def test_functions_have_it_for_each_request(server):
    server.answers += [GOOD] * 6
    with Client(server.url) as client:
        model = Model(client, VERSION)
        f = model.as_jax(timeout_s=30)
        x0 = jax.numpy.array(X0)
        jax.block_until_ready(jax.grad(lambda x: f(x, TIMES).sum())(x0))
        model.as_scipy(X0, TIMES, timeout_s=30).jac(X0)
        model.at(TIMES, timeout_s=30).hvp([x0], np.ones((1, 2)), [x0])
        assert all(25 < each <= 30 for each in told(server))
        assert len(server.asked) == 4
        model.at(TIMES).rollout([x0])
    assert told(server)[-1] == 60


def test_functions_raise_it(server):
    server.answers += [Answer(200, BODY, NPZ, after_s=3.0)] * 2
    with Client(server.url) as client:
        model = Model(client, VERSION)
        with pytest.raises(DeadlinePassed):
            model.as_jax(timeout_s=SOON_S)(X0, TIMES)
        with pytest.raises(DeadlinePassed):
            model.as_scipy(X0, TIMES, timeout_s=SOON_S).fun(X0)
