"""What one connection may take: the head of a request, and answers that nobody reads.

httptools joins the parts of a header as they come, so 100 MB of one took 23 s of the
event loop, from a caller without a key. And closing a connection waits until all is
sent, however long its other end reads nothing.
"""

import asyncio
import json

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024
"""Request line and headers together, give or take what one read brings; trailers of a
body in chunks likewise."""
_PROBLEM = json.dumps(
    {
        "type": "urn:spnode:problem:head_too_large",
        "title": "Request Header Fields Too Large",
        "status": 431,
        "detail": f"found more than {MAX_HEAD_BYTES} bytes of headers; expected fewer",
        "code": "head_too_large",
    }
).encode()
_REFUSAL = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: application/problem+json\r\n"
    b"content-length: %d\r\n"
    b"connection: close\r\n\r\n%s"
) % (len(_PROBLEM), _PROBLEM)


class BoundedHeads(HttpToolsProtocol):
    """uvicorn's protocol, which ends a connection that takes more than it may.

    That is one whose head grows and grows, or whose other end does not read.
    """

    patience_s = 30.0
    """How long a piece of an answer may wait for who is to read it."""
    _head_bytes = 0
    """Read since a head, a part of a body, or a request ended."""
    _unread: asyncio.TimerHandle | None = None

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
        super().data_received(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse()

    def on_headers_complete(self) -> None:
        """A head has ended."""
        self._head_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body has come."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request has ended."""
        self._head_bytes = 0
        super().on_message_complete()

    def _stop_waiting(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _refuse(self) -> None:
        """Say so where no answer is under way, and close."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(_REFUSAL)
        self.transport.close()
