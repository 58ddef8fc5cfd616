"""The load whose requests do not wait for one another."""

import asyncio
import threading

import pytest

from benchmarks.speed.open_load import send
from benchmarks.speed.overload import Found


class Slow:
    """A server that answers some requests after a while and refuses the others."""

    def __init__(self, room: int, takes_s: float) -> None:
        self.room, self.takes_s, self.inside = room, takes_s, 0
        self.port = 0
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Slow":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        started = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = self._loop.run_until_complete(started)
        self.port = self._server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()

    async def _serve(self, reader, writer) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(await self._answer())
        except asyncio.IncompleteReadError:
            writer.close()

    async def _answer(self) -> bytes:
        if self.inside >= self.room:
            return b"HTTP/1.1 503 x\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\nno"
        self.inside += 1
        await asyncio.sleep(self.takes_s)
        self.inside -= 1
        return b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes"


def test_requests_go_out_on_time_whatever_becomes_of_earlier_ones() -> None:
    with Slow(room=5, takes_s=0.5) as server:
        request = b"GET / HTTP/1.1\r\n\r\n"
        answers = send(server.port, request, rate=50.0, seconds=1.0)
    assert len(answers) == 50
    assert [each.due_s for each in answers] == pytest.approx(
        [number / 50 for number in range(50)]
    )
    taken = [each for each in answers if each.status == 200]
    refused = [each for each in answers if each.status == 503]
    # Five at once, each for half a second.
    assert 10 <= len(taken) <= 15
    assert len(taken) + len(refused) == 50
    assert all(each.latency_s >= 0.49 for each in taken)
    assert all(each.says_when for each in refused)
    assert not any(each.says_when for each in taken)
    found = Found(5.0, 0.5, answers, 1.0, 0.0)
    assert (len(found.taken), found.wrong) == (len(taken), [])
