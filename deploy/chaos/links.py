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
REFUSAL = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\n"
    b"Content-Length: 72\r\nConnection: close\r\n\r\n"
    b"<Error><Code>SlowDown</Code><Message>Reduce your rate.</Message></Error>"
)


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
            await _refuse(reader, writer)
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


async def _refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a request as a store does that has too much to do."""
    with contextlib.suppress(OSError):
        await reader.read(CHUNK_BYTES)
        writer.write(REFUSAL)
        await writer.drain()
    writer.close()
