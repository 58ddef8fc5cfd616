"""TLS in front of a server that speaks none: the wheel's Valkey is built without it."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import trustme


@contextlib.contextmanager
def tls_before(sock: Path, authority: trustme.CA) -> Iterator[int]:
    """Pass what comes by TLS on to a unix socket; gives the port on localhost."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    started: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, to_it = await asyncio.open_unix_connection(sock)
        await asyncio.gather(_pass_on(reader, to_it), _pass_on(behind, writer))

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        port, stop = server.sockets[0].getsockname()[1], asyncio.Event()
        started.set_result((port, asyncio.get_running_loop(), stop))
        await stop.wait()
        server.close()

    thread = threading.Thread(target=asyncio.run, args=[run()])
    thread.start()
    port, loop, stop = started.result(10)
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
