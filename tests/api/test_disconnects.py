"""A caller that goes away is found out, and what it asked for is given up."""

import asyncio
import io
import socket
import time
from urllib.parse import urlsplit

import numpy as np
import pytest
from fastapi import FastAPI
from starlette.requests import ClientDisconnect

from api.disconnects import Disconnects
from api.server import server_config
from tests.api.deployment import wait_for
from tests.api.test_metrics import read


class Caller:
    """The ``receive`` of a request whose body has been read."""

    def __init__(self):
        self.left = asyncio.Event()
        self.asked = 0

    async def receive(self):
        self.asked += 1
        await self.left.wait()
        return {"type": "http.disconnect"}


def test_only_calls_that_take_a_while_are_watched():
    async def scenario():
        disconnects, quick, slow = Disconnects(), Caller(), Caller()
        waiting = asyncio.create_task(
            disconnects.watched(asyncio.sleep(0.5, "late"), slow.receive)
        )
        assert await disconnects.watched(soon(), quick.receive) == "soon"
        assert await waiting == "late"
        assert (quick.asked, slow.asked) == (0, 1)
        assert len(asyncio.all_tasks()) == 1, "nothing is watched any more"

    async def soon():
        return "soon"

    asyncio.run(scenario())


def test_what_a_caller_that_left_waits_for_is_cancelled():
    async def scenario():
        disconnects, left, stays = Disconnects(), Caller(), Caller()
        given_up = asyncio.Event()

        async def rollout():
            try:
                await asyncio.sleep(60)
            finally:
                given_up.set()

        other = asyncio.create_task(
            disconnects.watched(asyncio.sleep(0.6, "mine"), stays.receive)
        )
        left.left.set()
        with pytest.raises(ClientDisconnect):
            await disconnects.watched(rollout(), left.receive)
        assert given_up.is_set()
        assert not asyncio.current_task().cancelling()
        assert await other == "mine"

    asyncio.run(scenario())


def test_an_error_and_a_cancellation_come_through():
    async def scenario():
        disconnects = Disconnects()

        async def fail():
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            await disconnects.watched(fail(), Caller().receive)
        task = asyncio.create_task(
            disconnects.watched(asyncio.sleep(60), Caller().receive)
        )
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


def test_a_rollout_whose_caller_hangs_up_is_given_up_and_counted(deployment, client):
    counted = gone(client, "/v1/rollout")
    before = client.get("/health/ready").json()["rollouts"]["cancelled"]
    body = io.BytesIO()
    x0 = np.tile([0.5, 1e-5, 0.5], (60_000, 1))
    np.savez(body, model="small", x0=x0, times=np.geomspace(1e-3, 1e3, 200))
    content = body.getvalue()
    address = urlsplit(deployment.url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        head = (
            "POST /v1/rollout HTTP/1.1\r\nhost: localhost\r\n"
            "content-type: application/x-npz\r\naccept: application/x-npz\r\n"
            f"authorization: Bearer {deployment.key}\r\n"
            f"content-length: {len(content)}\r\n\r\n"
        )
        connection.sendall(head.encode() + content)
        await_rows(client)
    until = time.monotonic() + 60
    while (now := client.get("/health/ready").json()["rollouts"])["queued_rows"]:
        assert time.monotonic() < until, now
        time.sleep(0.05)
    assert now["cancelled"] == before + 1
    wait_for(lambda: gone(client, "/v1/rollout") == counted + 1, 10)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v1/rollout", "application/json"),
        ("/v1/jobs", "application/json"),
        ("/v1/datasets", "application/octet-stream"),
        ("/umbridge/Evaluate", "application/json"),
    ],
)
def test_a_body_that_breaks_off_is_counted_and_no_problem(
    deployment, client, path, kind
):
    before, problems = gone(client, path), read(client)
    address = urlsplit(deployment.url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        head = (
            f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\n"
            f"authorization: Bearer {deployment.key}\r\ncontent-length: 1000\r\n\r\n"
        )
        connection.sendall(head.encode() + b"{")
        time.sleep(0.2)
    wait_for(lambda: gone(client, path) == before + 1, 10)
    refused = {"code": "bad_request"}
    now = read(client)("spnode_problems_total", **refused)
    assert now == problems("spnode_problems_total", **refused)


def gone(client, route):
    """How many callers of a route went away before they were answered."""
    labels = {"method": "POST", "route": route, "status": "499"}
    return read(client)("spnode_request_seconds_count", **labels)


def await_rows(client):
    """Wait until rows wait or run."""
    until = time.monotonic() + 60
    while not client.get("/health/ready").json()["rollouts"]["queued_rows"]:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_an_idle_connection_outlives_what_others_keep():
    """Else a request is sent into a connection that is being closed, and is lost."""
    kept_by_balancers_s = 60
    config = server_config(FastAPI(), "127.0.0.1", 0)
    assert config.timeout_keep_alive > kept_by_balancers_s
