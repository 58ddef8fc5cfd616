"""The two drivers that run operations on httpx: blocking and async."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import httpx

from spnode_client.calls import Call, Lost, OnBytes, Operation, Pause, Reply, refusal

T = TypeVar("T")
CHUNK_BYTES = 1 << 20


class Transport:
    """Runs operations, blocking.

    Args:
        url: Address of the service.
        key: API key, or None where the service asks for none.
        timeout_s: How long an answer may take to begin.

    Attributes:
        on_bytes: Told how many bytes of a file are sent or fetched, and of how many;
            another try begins anew.
    """

    def __init__(self, url: str, key: str | None, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.on_bytes: OnBytes | None = None
        self.http = httpx.Client(**_settings(url, key, timeout_s))

    def run(self, operation: Operation[T]) -> T:
        """Run an operation to its result."""
        outcome: Reply | Lost | None = None
        while True:
            try:
                wanted = operation.send(outcome)
            except StopIteration as end:
                return end.value
            if isinstance(wanted, Pause):
                time.sleep(wanted.seconds)
                outcome = None
            else:
                outcome = self._exchange(wanted)

    def lines(self, call: Call, quiet_s: float = 60.0) -> Iterator[str]:
        """The lines of an endless answer, as they come; an error after silence."""
        with self.http.stream(**_request(call, quiet_s)) as response:
            if response.status_code >= 400:
                response.read()
            yield from _checked(response).iter_lines()

    def _exchange(self, call: Call) -> Reply | Lost:
        content: Any = call.content
        if isinstance(content, Path):
            content = self._sent(content)
        try:
            with self.http.stream(
                **_request(call, self.timeout_s), content=content
            ) as response:
                if call.save_to is None or response.status_code >= 400:
                    return _reply(response, response.read())
                with _saving(call.save_to) as file:
                    for chunk in response.iter_bytes():
                        file.write(chunk)
                        self._tell(response.num_bytes_downloaded, _length(response))
                return _reply(response, b"")
        except httpx.TransportError as error:
            return _lost(error)

    def _sent(self, path: Path) -> Iterator[bytes]:
        done, total = 0, path.stat().st_size
        for chunk in _chunks(path):
            yield chunk
            done += len(chunk)
            self._tell(done, total)

    def _tell(self, done: int, total: int | None) -> None:
        if self.on_bytes is not None:
            self.on_bytes(done, total)


class AsyncTransport:
    """Runs operations on an event loop; arguments as for ``Transport``."""

    def __init__(self, url: str, key: str | None, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.http = httpx.AsyncClient(**_settings(url, key, timeout_s))

    async def run(self, operation: Operation[T]) -> T:
        """Run an operation to its result."""
        outcome: Reply | Lost | None = None
        while True:
            try:
                wanted = operation.send(outcome)
            except StopIteration as end:
                return end.value
            if isinstance(wanted, Pause):
                await asyncio.sleep(wanted.seconds)
                outcome = None
            else:
                outcome = await self._exchange(wanted)

    async def lines(self, call: Call) -> AsyncIterator[str]:
        """The lines of an endless answer, as they come."""
        async with self.http.stream(**_request(call, 60.0)) as response:
            if response.status_code >= 400:
                await response.aread()
            async for line in _checked(response).aiter_lines():
                yield line

    async def _exchange(self, call: Call) -> Reply | Lost:
        content: Any = call.content
        if isinstance(content, Path):
            content = _async_chunks(content)
        try:
            async with self.http.stream(
                **_request(call, self.timeout_s), content=content
            ) as response:
                if call.save_to is None or response.status_code >= 400:
                    return _reply(response, await response.aread())
                with _saving(call.save_to) as file:
                    async for chunk in response.aiter_bytes():
                        file.write(chunk)
                return _reply(response, b"")
        except httpx.TransportError as error:
            return _lost(error)


class _saving:
    """A file that takes its name only when it is complete."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f"{path.name}.part")

    def __enter__(self) -> BinaryIO:
        self._file = self._part.open("wb")
        return self._file

    def __exit__(self, kind: type | None, *_: object) -> None:
        self._file.close()
        if kind is None:
            os.replace(self._part, self._path)
        else:
            self._part.unlink(missing_ok=True)


def _settings(url: str, key: str | None, timeout_s: float) -> dict[str, Any]:
    headers = {"user-agent": "spnode-client", "accept": "application/json"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    return {
        "base_url": url.rstrip("/"),
        "headers": headers,
        "timeout": httpx.Timeout(timeout_s, connect=10.0),
    }


def _request(call: Call, timeout_s: float) -> dict[str, Any]:
    limit = timeout_s + (call.timeout_s or 0.0)
    return {
        "method": call.method,
        "url": call.path,
        "params": dict(call.query),
        "headers": dict(call.headers),
        "timeout": httpx.Timeout(limit, connect=10.0),
    }


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


async def _async_chunks(path: Path) -> AsyncIterator[bytes]:
    for chunk in _chunks(path):
        yield chunk


def _length(response: httpx.Response) -> int | None:
    told = response.headers.get("content-length", "")
    return int(told) if told.isdecimal() else None


def _reply(response: httpx.Response, content: bytes) -> Reply:
    return Reply(response.status_code, response.headers, content)


def _lost(error: httpx.TransportError) -> Lost:
    request = error.request
    where = f"{request.url.scheme}://{request.url.netloc.decode()}"
    return Lost(f"no answer from {where}: {error or type(error).__name__}")


def _checked(response: httpx.Response) -> httpx.Response:
    """The response, or the refusal that it carries."""
    if response.status_code >= 400:
        raise refusal(_reply(response, response.content))
    return response
