"""The two drivers that run operations on httpx: blocking and async."""

import asyncio
import contextlib
import contextvars
import hashlib
import os
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx

from spnode_client.calls import Call, Lost, OnBytes, Operation, Pause, Reply, refusal
from spnode_client.deadlines import LONGEST_S, Deadline
from spnode_client.errors import ClientError

T = TypeVar("T")
_DEADLINE = "request-timeout"
# What an answer may need to come back.
_ON_ITS_WAY_S = 5.0
# Of what is left at a deadline: httpx takes no limit of 0.
_LEAST_S = 0.001
_TIMED_OUT = "timed out"
_DIGEST = re.compile('"[0-9a-f]{64}"')
CHUNK_BYTES = 1 << 20
CALLING = "spnode-call"
"""Name of the thread that has a call with a deadline of its own."""


class Transport:
    """Runs operations, blocking.

    Args:
        url: Address of the service.
        key: API key, or None where the service asks for none.
        timeout_s: How long an answer may take to begin.

    Raises:
        ClientError: The address is none, or no header can have the key.

    Attributes:
        on_bytes: Told how many bytes of a file are sent or fetched, and of how many;
            another try begins anew.
    """

    def __init__(self, url: str, key: str | None, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.on_bytes: OnBytes | None = None
        self._settings = _settings(url, key, timeout_s)
        self._http, self._process = httpx.Client(**self._settings), os.getpid()

    @property
    def http(self) -> httpx.Client:
        """What sends requests: of each process its own.

        Processes that were forked share connections, and would read each other's
        answers.
        """
        if self._process != os.getpid():
            # The connections themselves stay: they are the parent's.
            self._inherited = self._http
            self._http, self._process = httpx.Client(**self._settings), os.getpid()
        return self._http

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
            if not response.is_success:
                response.read()
            yield from _checked(response).iter_lines()

    def _exchange(self, call: Call) -> Reply | Lost:
        if call.deadline is None:
            return self._asked(call)
        left = call.deadline.left()
        if left <= 0:
            return _late(self.http.base_url)
        # httpx bounds each wait for the network, not all of them together, and not
        # the search for a host's address: the thread that has these may be left alone.
        answer: Future[Reply | Lost] = Future()
        context = contextvars.copy_context()
        given = (_settle, answer, self._asked, call)
        threading.Thread(None, context.run, CALLING, given, daemon=True).start()
        try:
            return answer.result(left)
        except TimeoutError:
            return _late(self.http.base_url)

    def _asked(self, call: Call) -> Reply | Lost:
        content: Any = call.content
        if isinstance(content, Path):
            content = self._sent(content)
        try:
            with self.http.stream(
                **_request(call, self.timeout_s, self.http.headers), content=content
            ) as response:
                if call.save_to is None or not response.is_success:
                    parts = _wanted(response, call.deadline)
                    return _reply(response, b"".join(parts))
                with _saving(call.save_to, response) as file:
                    for chunk in response.iter_bytes():
                        file.write(chunk)
                        self._tell(response.num_bytes_downloaded, _length(response))
                return _reply(response, b"")
        except httpx.TransportError as error:
            return _lost(error)
        except _AlteredError as error:
            return Lost(str(error))

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

    async def lines(self, call: Call, quiet_s: float = 60.0) -> AsyncIterator[str]:
        """The lines of an endless answer, as they come; an error after silence."""
        async with self.http.stream(**_request(call, quiet_s)) as response:
            if not response.is_success:
                await response.aread()
            async for line in _checked(response).aiter_lines():
                yield line

    async def _exchange(self, call: Call) -> Reply | Lost:
        if call.deadline is None:
            return await self._asked(call)
        left = call.deadline.left()
        if left > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    return await self._asked(call)
        return _late(self.http.base_url)

    async def _asked(self, call: Call) -> Reply | Lost:
        content: Any = call.content
        if isinstance(content, Path):
            content = _async_chunks(content)
        try:
            async with self.http.stream(
                **_request(call, self.timeout_s, self.http.headers), content=content
            ) as response:
                if call.save_to is None or not response.is_success:
                    return _reply(response, await response.aread())
                with _saving(call.save_to, response) as file:
                    async for chunk in response.aiter_bytes():
                        file.write(chunk)
                return _reply(response, b"")
        except httpx.TransportError as error:
            return _lost(error)
        except _AlteredError as error:
            return Lost(str(error))


class _AlteredError(Exception):
    """A file is not the one that was sent."""


class _saving:
    """A file that takes its name only when it is complete, and as it was sent.

    Args:
        path: Its name.
        response: What it comes from; a digest as its ETag is that of the file.
    """

    def __init__(self, path: Path, response: httpx.Response) -> None:
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        self._response = response
        self._found = hashlib.sha256()

    def __enter__(self) -> Self:
        self._file = self._part.open("wb")
        return self

    def write(self, chunk: bytes) -> None:
        """Add to it."""
        self._file.write(chunk)
        self._found.update(chunk)

    def __exit__(self, kind: type | None, *_: object) -> None:
        self._file.close()
        sent, found = self._response.headers.get("etag", ""), self._found.hexdigest()
        is_other = _DIGEST.fullmatch(sent) is not None and sent.strip('"') != found
        if kind is None and not is_other:
            os.replace(self._part, self._path)
            return
        self._part.unlink(missing_ok=True)
        if kind is None:
            where = _origin(self._response.request.url)
            raise _AlteredError(
                f"the file from {where} came altered: found sha256 {found}, expected "
                f"{sent}"
            )


def _settings(url: str, key: str | None, timeout_s: float) -> dict[str, Any]:
    headers = {"user-agent": "spnode-client", "accept": "application/json"}
    if key := (key or "").strip():
        headers["authorization"] = f"Bearer {_sendable(key)}"
    return {
        "base_url": _address(url),
        "headers": headers,
        "timeout": httpx.Timeout(timeout_s, connect=10.0),
    }


def _address(url: str) -> str:
    try:
        found = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        found = httpx.URL("")
    if found.scheme not in ("http", "https") or not found.host:
        raise ClientError(
            f"url: found {url!r}; expected an address such as http://127.0.0.1:8000"
        )
    return url.rstrip("/")


def _sendable(key: str) -> str:
    """The key; what is wrong with one is said without it, for logs keep errors."""
    wrong = next((i for i, each in enumerate(key) if not "!" <= each <= "~"), None)
    if wrong is not None:
        raise ClientError(
            f"key: character {wrong + 1} is U+{ord(key[wrong]):04X}; expected letters, "
            "digits, - and _ alone: copy the whole key once more"
        )
    return key


def _request(
    call: Call, timeout_s: float, usual: Mapping[str, str] | None = None
) -> dict[str, Any]:
    limit = timeout_s + (call.timeout_s or 0.0)
    headers = dict(call.headers)
    if call.deadline is not None:
        limit = max(call.deadline.left(), _LEAST_S)
        headers[_DEADLINE] = f"{limit:g}"
    elif call.is_computed and _DEADLINE not in (usual or {}):
        # The service gives up when nobody waits any more, and says so a bit earlier.
        headers[_DEADLINE] = f"{min(limit, LONGEST_S):g}"
        limit += _ON_ITS_WAY_S
    if call.most_s is not None:
        limit = min(limit, call.most_s)
    return {
        "method": call.method,
        "url": call.path,
        "params": dict(call.query),
        "headers": headers,
        "timeout": httpx.Timeout(limit, connect=min(10.0, limit)),
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


def _settle(
    answer: Future[Reply | Lost], ask: Callable[[Call], Reply | Lost], call: Call
) -> None:
    try:
        answer.set_result(ask(call))
    except Exception as error:  # whoever waits raises it
        answer.set_exception(error)


def _wanted(response: httpx.Response, deadline: Deadline | None) -> Iterator[bytes]:
    """The body's parts, as long as somebody waits for them."""
    for part in response.iter_bytes():
        if deadline is not None and deadline.left() <= 0:
            raise httpx.ReadTimeout(_TIMED_OUT, request=response.request)
        yield part


def _reply(response: httpx.Response, content: bytes) -> Reply:
    return Reply(response.status_code, response.headers, content)


def _lost(error: httpx.TransportError) -> Lost:
    return _nothing(error.request.url, str(error) or type(error).__name__)


def _late(url: httpx.URL) -> Lost:
    return _nothing(url, _TIMED_OUT)


def _nothing(url: httpx.URL, reason: str) -> Lost:
    return Lost(f"no answer from {_origin(url)}: {reason}")


def _origin(url: httpx.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode()}"


def _checked(response: httpx.Response) -> httpx.Response:
    """The response, or the refusal that it carries."""
    if not response.is_success:
        raise refusal(_reply(response, response.content))
    return response
