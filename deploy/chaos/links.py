"""A TCP proxy on each link, to make it slow, to cut it, to answer with errors.

::

    process ──host:port──▶ Link ──▶ the server: host and port, or a socket
                               └──▶ or the next of several that takes it

All links of a run share one event loop in a thread of its own.
"""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Target = Path | tuple[str, int]
State = Literal["open", "slow", "held", "cut", "errors"]
HOST = "127.0.0.1"
CHUNK_BYTES = 1 << 16
SLOW_S = 0.15
"""Delay of each piece that crosses a slow link."""
HELD_LOOK_S = 0.05
"""How often a link that lets nothing pass looks whether it may."""
PUTS_FOR_ONE_404 = 4
"""Clients try again after a 503 alone: some puts are to get so far."""
SLOW_DOWN = ("503 Slow Down", "SlowDown")
NO_BUCKET = ("404 Not Found", "NoSuchBucket")


@dataclass
class Link:
    """The proxy of one link.

    Args:
        name: For the report: which process reaches what by it.
        targets: A socket's path, or host and port; of several each gets a connection in
            turn, and one that takes none is passed over, as by a balancer.
        host: The address that it listens on.
    """

    name: str
    targets: tuple[Target, ...]
    host: str = HOST
    state: State = "open"
    port: int = 0
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _server: asyncio.Server | None = None
    _turn: int = 0
    _puts: int = 0

    async def listen(self) -> None:
        """Begin to accept connections on a free port."""
        self._server = await asyncio.start_server(self._accept, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def change(self, state: State) -> None:
        """Behave otherwise from now on; connections end where they cannot go on."""
        self.state = state
        if state in ("cut", "errors"):
            for writer in list(self._writers):
                writer.transport.abort()

    async def end(self) -> None:
        """Accept nothing more, and end every connection."""
        await self.change("cut")
        if self._server is not None:
            self._server.close()

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self.state == "cut":
            writer.transport.abort()
            return
        if self.state == "errors":
            await self._refuse(reader, writer)
            return
        try:
            there, back = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, back}
        self._writers |= pair
        try:
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        finally:
            self._writers -= pair
            for each in pair:
                each.close()

    async def _refuse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer a request as a store does that has too much to do, or no bucket.

        The second to PUTs alone: of a GET it would say that a content is not there.
        """
        with contextlib.suppress(OSError):
            asked = await reader.read(CHUNK_BYTES)
            is_put = asked.startswith(b"PUT ")
            self._puts += is_put
            is_nth = is_put and self._puts % PUTS_FOR_ONE_404 == 0
            writer.write(_error(*(NO_BUCKET if is_nth else SLOW_DOWN)))
            await writer.drain()
        writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self._turn += 1
        first = self._turn % len(self.targets)
        *others, last = self.targets[first:] + self.targets[:first]
        for target in others:
            with contextlib.suppress(OSError):
                return await _connected(target)
        return await _connected(last)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if self.state == "slow":
                    await asyncio.sleep(SLOW_S)
                while self.state == "held":
                    await asyncio.sleep(HELD_LOOK_S)
                writer.write(data)
                await writer.drain()
        # One end has gone: the other learns of it.
        with contextlib.suppress(OSError, RuntimeError):
            writer.write_eof()


class Links:
    """The links of a run and the loop that they live on; closes as a context."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="links", daemon=True
        )
        self._thread.start()
        self.all: list[Link] = []

    def add(self, name: str, *targets: Target, host: str = HOST) -> Link:
        """Open a link; its port is known when this returns."""
        link = Link(name, targets, host)
        self._run(link.listen())
        self.all.append(link)
        return link

    def change(self, link: Link, state: State) -> None:
        """Make a link slow, cut it, have it answer errors, open it again."""
        self._run(link.change(state))

    def close(self) -> None:
        """End every connection and the loop."""
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        for link in self.all:
            await link.end()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for each in others:
            each.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


async def _connected(
    target: Target,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(target, Path):
        return await asyncio.open_unix_connection(target)
    return await asyncio.open_connection(*target)


def _error(status: str, code: str) -> bytes:
    """An answer of S3."""
    content = f"<Error><Code>{code}</Code></Error>"
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\n"
    length = f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    return (head + length + content).encode()
