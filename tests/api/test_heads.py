"""The head of an answer and what follows it are one write."""

import asyncio

import pytest

from api.heads import Joining

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


class Transport(asyncio.Transport):
    """Keeps what is written, call by call."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def write(self, data):
        self.calls.append(bytes(data))

    def writelines(self, list_of_data):
        self.calls.append(tuple(map(bytes, list_of_data)))

    def is_closing(self):
        return "closed" in self.calls

    def close(self):
        self.calls.append("closed")

    def abort(self):
        self.calls.append("aborted")


def written(scenario) -> list:
    """What a transport was told while a coroutine function had a joining one of it."""

    async def run():
        transport = Transport()
        await scenario(Joining(transport, asyncio.get_running_loop()))
        return transport.calls

    return asyncio.run(run())


def test_a_head_goes_with_its_body():
    async def scenario(joining):
        joining.write(HEAD)
        joining.write(b"{}")
        joining.write(b"more")
        await asyncio.sleep(0)

    assert written(scenario) == [HEAD + b"{}", b"more"]


def test_a_long_body_is_not_copied_behind_its_head():
    body = b"0" * 100_000

    async def scenario(joining):
        joining.write(HEAD)
        joining.write(body)

    assert written(scenario) == [(HEAD, body)]


def test_a_head_that_nothing_follows_goes_in_the_next_turn_of_the_loop():
    async def scenario(joining):
        joining.write(HEAD)
        await asyncio.sleep(0)
        joining.write(b"data: 1\n\n")

    assert written(scenario) == [HEAD, b"data: 1\n\n"]


def test_two_heads_stay_in_their_order():
    async def scenario(joining):
        joining.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        joining.write(HEAD)
        joining.write(b"{}")
        await asyncio.sleep(0)

    assert (
        b"".join(written(scenario)) == b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"{}"
    )


@pytest.mark.parametrize(
    ("end", "told"), [("close", [HEAD, "closed"]), ("abort", ["aborted"])]
)
def test_what_is_kept_goes_before_the_connection_closes(end, told):
    async def scenario(joining):
        joining.write(HEAD)
        assert not joining.is_closing()
        getattr(joining, end)()
        await asyncio.sleep(0)

    assert written(scenario) == told
