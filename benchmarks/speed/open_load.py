"""An open load: requests go out on time, whether earlier ones were answered or not.

As many callers who do not wait for one another: what a server does not answer in time
piles up at its door. Latencies count from when a request was due.
"""

import asyncio
import re
import time
from dataclasses import dataclass

from benchmarks.speed.load import LENGTH

_RETRY_AFTER = re.compile(rb"\r\nretry-after: *\d+", re.IGNORECASE)
_LOST = 0


@dataclass(frozen=True)
class Answer:
    """What came of one request.

    Args:
        due_s: When it was to go out, from the beginning.
        latency_s: From then to its whole answer.
        status: HTTP status; 0 where the connection was lost.
        says_when: Whether it has Retry-After.
    """

    due_s: float
    latency_s: float
    status: int
    says_when: bool


def send(port: int, request: bytes, *, rate: float, seconds: float) -> list[Answer]:
    """Send the request so many times a second and wait for every answer.

    Args:
        port: On 127.0.0.1.
        request: As bytes.
        rate: Requests a second, at even distances.
        seconds: For how long.
    """
    return asyncio.run(_send(port, request, rate, seconds))


async def _send(port: int, request: bytes, rate: float, seconds: float) -> list[Answer]:
    free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    began = time.perf_counter()

    async def one(due: float) -> Answer:
        try:
            pair = (
                free.pop() if free else await asyncio.open_connection("127.0.0.1", port)
            )
        except OSError:
            return Answer(due, time.perf_counter() - began - due, _LOST, False)
        reader, writer = pair
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = LENGTH.search(head)
            await reader.readexactly(int(length[1]) if length else 0)
        except (OSError, EOFError):
            writer.close()
            return Answer(due, time.perf_counter() - began - due, _LOST, False)
        free.append(pair)
        took = time.perf_counter() - began - due
        says_when = _RETRY_AFTER.search(head) is not None
        return Answer(due, took, int(head[9:12]), says_when)

    async with asyncio.TaskGroup() as group:
        tasks = []
        for number in range(round(rate * seconds)):
            due = number / rate
            await asyncio.sleep(max(0.0, began + due - time.perf_counter()))
            tasks.append(group.create_task(one(due)))
    for _, writer in free:
        writer.close()
    return [task.result() for task in tasks]
