"""The head of an answer and what follows it are one write."""

import asyncio
import json
import re

import pytest
from uvicorn.server import ServerState

from api.heads import BODY_IS_HERE, BoundedHeads, Joining
from api.server import server_config
from services.logs import JsonLines

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

    def pause_reading(self):
        """Nothing is read here."""

    def resume_reading(self):
        """Likewise."""

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


class Told(list):
    """What a gateway's protocol was asked for, request by request."""

    def __init__(self):
        super().__init__()
        self.bodies = []

    async def __call__(self, scope, receive, send):
        self.append((scope["path"], bool(scope.get(BODY_IS_HERE))))
        self.headers = dict(scope["headers"])
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})


def answered(*parts: bytes) -> tuple[Told, list]:
    """What an application was told by parts of a connection, and what came of it."""

    async def run():
        told, transport = Told(), Transport()
        config = server_config(told, "127.0.0.1", 0)
        config.load()
        protocol = BoundedHeads(config, ServerState(), {})
        protocol.connection_made(transport)
        for part in parts:
            protocol.data_received(part)
            await asyncio.sleep(0.01)
        protocol.connection_lost(ConnectionResetError())
        await asyncio.sleep(0.01)
        return told, transport.calls

    return asyncio.run(run())


def request(path: str, method: str = "POST") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n".encode()


def test_a_body_that_came_with_its_head_is_not_watched():
    assert answered(request("/one") + b"abc")[0] == [("/one", True)]
    assert answered(request("/one"), b"abc")[0] == [("/one", False)]
    assert answered(request("/one") + b"ab", b"c")[0] == [("/one", False)]


def test_answers_of_a_pipeline_keep_their_order():
    told, calls = answered(request("/one") + b"abc" + request("/two") + b"abc")
    assert told == [("/one", True), ("/two", True)]
    assert len(calls) == 2
    assert all(call.endswith(b"\r\n\r\n{}") for call in calls)


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


def upgraded(path: str, *more: bytes) -> bytes:
    line = b"POST /%s HTTP/1.1\r\nHost: x\r\n" % path.encode()
    return line + UPGRADE + b"".join(each + b"\r\n" for each in more) + b"\r\n"


@pytest.mark.parametrize("size", [1, 7, 1000], ids=lambda size: f"by {size}")
@pytest.mark.parametrize("form", ["length", "chunks"])
def test_the_body_behind_an_upgrade_is_no_request(form, size):
    body, framing = SMUGGLED, b"Content-Length: %d" % len(SMUGGLED)
    if form == "chunks":
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
        framing = b"Transfer-Encoding: chunked"
    sent = upgraded("one", framing) + body + request("/two") + b"abc"
    told, calls = answered(*(sent[k : k + size] for k in range(0, len(sent), size)))
    assert told.bodies == [SMUGGLED, b"abc"]
    assert [path for path, _ in told] == ["/one", "/two"]
    assert len(calls) == 2


def test_requests_behind_each_other_may_all_want_an_upgrade():
    told, _ = answered(upgraded("one") + upgraded("two") + upgraded("three"))
    assert [path for path, _ in told] == ["/one", "/two", "/three"]


def test_nothing_else_is_taken_from_the_head_of_an_upgrade():
    close = upgraded("one", b"Connection: close, upgrade", b"X-Empty:", b"X-A: 1, 2")
    told, calls = answered(close)
    assert told.headers == {
        b"host": b"x",
        b"connection": b"close",
        b"x-empty": b"",
        b"x-a": b"1, 2",
    }
    assert calls[-1] == "closed"


def test_no_tunnel_is_opened():
    told, calls = answered(b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n" + SMUGGLED)
    assert told == []
    assert calls[0].startswith(b"HTTP/1.1 400 ")
    assert calls[1:] == ["closed"]


def test_what_is_no_http_is_in_the_log_with_its_answers_id(caplog):
    formatter = JsonLines()
    ids = []
    caplog.handler.addFilter(lambda r: ids.append(formatter.format(r)) or True)
    _, (answer, _) = answered(b"GET / HTTP/1.1\r\nno header\r\n\r\n")
    (named,) = re.findall(rb"x-request-id: (req_\w+)", answer)
    (record,) = map(json.loads, ids)
    assert record["request_id"] == named.decode()


def test_an_answer_without_a_body_is_sent_all_the_same():
    _, calls = answered(request("/one", "HEAD") + b"abc")
    (head,) = calls
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert head.endswith(b"\r\n\r\n")
