"""A connection: how large a head may be, how long an answer waits for its reader.

httptools joins the parts of a header as they come, so 100 MB of one took 23 s of the
event loop, from a caller without a key. Behind the head of a request that wants another
protocol it reads no body, so that would be the next request. And closing a connection
waits until all is sent, however long its other end reads nothing.
"""

import asyncio
import contextvars
import json
import logging
import urllib.parse
from http import HTTPStatus

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.errors import PROBLEM, Problem
from api.protocols.shapes import counted
from services.identity import new_id
from services.logs import of_request

log = logging.getLogger("spnode.api")

BODY_IS_HERE = "spnode.body_is_here"
"""In a request's scope once its body has come: nobody need watch who sends it."""
MAX_HEAD_BYTES = 64 * 1024
"""Request line and headers together, give or take what one read brings; trailers of a
body in chunks likewise."""
_TOO_LARGE = Problem(
    431,
    "head_too_large",
    f"found more than {MAX_HEAD_BYTES} bytes of headers; expected fewer",
)
_UNREADABLE = Problem(
    400,
    "bad_request",
    "found bytes that are no HTTP request; expected a request line, headers and "
    "a body as in RFC 9112",
)
_BEGIN = b"HTTP/1.1 "
# Longer bodies are not copied behind their head.
_COPIED_BYTES = 16 * 1024


class Joining(asyncio.Transport):
    """Writes the head of an answer together with what follows it.

    uvicorn writes the two apart: one more call of the system for each, and one more
    turn of whoever reads them.

    Args:
        transport: What is written to.
        loop: At whose next turn a head goes that nothing has followed.
    """

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__()
        self._transport, self._loop = transport, loop
        self._head = b""
        self.is_closing = transport.is_closing
        self.get_extra_info = transport.get_extra_info

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send what is kept and this, or keep it where it is a head."""
        head, self._head = self._head, b""
        if head:
            if len(data) < _COPIED_BYTES:
                self._transport.write(head + data)
            else:
                self._transport.writelines((head, data))
        elif data[: len(_BEGIN)] == _BEGIN:
            self._head = bytes(data)
            self._loop.call_soon(self._send_head)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Send what is kept, and close."""
        self._send_head()
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._head = b""
        self._transport.abort()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand the connection over."""
        self._transport.set_protocol(protocol)

    def _send_head(self) -> None:
        head, self._head = self._head, b""
        # The other end may have gone since.
        if head and not self._transport.is_closing():
            self._transport.write(head)


class BoundedHeads(HttpToolsProtocol):
    """uvicorn's protocol, which ends a connection that takes more than it may.

    That is one whose head grows and grows, or whose other end does not read.
    """

    patience_s = 30.0
    """How long a piece of an answer may wait for who is to read it."""
    url = b""
    """Target of the request that comes in, as far as it has come."""
    _head_bytes = 0
    """Read since a head, a part of a body, or a request ended."""
    _wants_other = False
    """Whether the request that comes in wants another protocol."""
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody has connected."""
        super().connection_made(transport)
        self.transport = Joining(transport, self.loop)

    def pause_writing(self) -> None:
        """A piece waits to be sent; the next one waits for it."""
        super().pause_writing()
        self._unread = self.loop.call_later(self.patience_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It has gone."""
        super().resume_writing()
        self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        super().connection_lost(exc)
        self._stop_waiting()

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and look how long it has had nothing but headers."""
        self._head_bytes += len(data)
        self._unset_keepalive_if_required()
        rest: bytes | memoryview = data
        try:
            while rest:
                rest = self._fed(rest)
        except httptools.HttpParserError as error:
            self._refuse(_UNREADABLE, str(error))
            return
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(_TOO_LARGE, f"{self._head_bytes} bytes of headers")

    def _fed(self, data: bytes | memoryview) -> bytes | memoryview:
        """Feed the parser; what is to be fed to it next."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self.parser.get_method() == b"CONNECT":
                raise httptools.HttpParserError("the method CONNECT") from None
            head = self._without_upgrade()
            self.parser.feed_data(head)
            (end,) = upgrade.args
            # Of which nothing is copied, however many more want an upgrade.
            return memoryview(data)[end:]
        return b""

    def _without_upgrade(self) -> bytes:
        """The head once more, for a new parser, without the wish for another protocol.

        RFC 9110, section 7.8: a server may ignore it.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version()
        lines = [b"%s %s HTTP/%s" % (method, self.url, version.encode())]
        for name, value in self.headers:
            kept = value
            if name == b"connection":
                tokens = (token.strip() for token in value.split(b","))
                kept = b", ".join(each for each in tokens if each.lower() != b"upgrade")
            if b"\r" in kept or b"\n" in kept:
                raise httptools.HttpParserError("a header of several lines")
            if name != b"upgrade" and (kept or not value):
                lines.append(b"%s: %s" % (name, kept))
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._wants_other = False
        return b"\r\n".join([*lines, b"", b""])

    def on_headers_complete(self) -> None:
        """A head has ended."""
        self._wants_other = self.parser.should_upgrade()
        if self._wants_other:
            return
        self._head_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body has come."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request has ended."""
        if self._wants_other:
            return
        self._head_bytes = 0
        self.scope[BODY_IS_HERE] = True  # type: ignore[typeddict-unknown-key]
        super().on_message_complete()
        self.url = b""

    def _stop_waiting(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _refuse(self, problem: Problem, reason: str) -> None:
        """Say so where no answer has begun, and close."""
        request_id = new_id("req")
        context = contextvars.copy_context()
        context.run(_log, request_id, self.client, problem, reason)
        cycle = self.cycle
        is_free = cycle is None or cycle.response_complete or not cycle.response_started
        # In a pipeline an earlier answer may be under way.
        if is_free and not self.pipeline:
            path = _path(self.url)
            self.transport.write(_refusal(problem, path, request_id))
        self.transport.close()


def _path(url: bytes) -> str:
    """The path of a target, of which the end may be missing; empty where it is none."""
    try:
        # It reads no longer ones, and a door is told by the beginning.
        path = httptools.parse_url(url[: MAX_HEAD_BYTES - 1]).path or b""
    except httptools.HttpParserInvalidURLError:
        return ""
    return urllib.parse.unquote(path.decode("latin-1"))


def _log(
    request_id: str, client: tuple[str, int] | None, problem: Problem, reason: str
) -> None:
    of_request(request_id)
    whence = client[0] if client else "a socket"
    log.warning("%d for what came from %s: %s", problem.status, whence, reason)


def _refusal(problem: Problem, path: str, request_id: str) -> bytes:
    """The answer, counted, in the form of the door that a path is at.

    A problem where it is at none, and where so little of the request has been read that
    nobody knows.
    """
    found, kind = counted(problem, path), "application/json"
    if found is None:
        found, kind = (problem.status, problem.content()), PROBLEM
    status, content = found
    title = HTTPStatus(status).phrase
    body = json.dumps(content).encode()
    headers = {
        "content-type": kind,
        "content-length": str(len(body)),
        "connection": "close",
        "x-request-id": request_id,
        **problem.headers,
    }
    lines = [f"HTTP/1.1 {status} {title}", *map(": ".join, headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body
