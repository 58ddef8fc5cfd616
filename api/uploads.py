"""Bodies that are files: streamed to a folder that goes when they are dealt with.

What all of them take on the disk is bounded: a body may come slowly, so that many are
there at once.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from starlette.requests import Request

from services.errors import Overloaded
from services.settings import Settings
from services.work_folder import working

_RETRY_AFTER_S = 10.0


class UploadRoom:
    """The bytes of disk that uploads have claimed, of those that there are.

    Args:
        settings: How many there are, and how many one upload may have.
    """

    def __init__(self, settings: Settings) -> None:
        self._most = settings.max_upload_bytes
        self._limit = max(settings.upload_space_bytes, self._most)
        self.taken = 0

    @contextlib.contextmanager
    def claimed(self, request: Request) -> Iterator[None]:
        """Keep room for a body: its length, or the most where it does not say.

        Raises:
            Overloaded: There is too little left.
        """
        given = request.headers.get("content-length", "")
        size = int(given) if given.isdecimal() else self._most
        if self.taken + size > self._limit:
            raise Overloaded(
                f"uploads of {self.taken} bytes are on their way already, and there is "
                f"room for {self._limit}",
                retry_after_s=_RETRY_AFTER_S,
            )
        self.taken += size
        try:
            yield
        finally:
            self.taken -= size


@contextlib.asynccontextmanager
async def received(
    request: Request, settings: Settings, room: UploadRoom
) -> AsyncIterator[Path]:
    """Write a request's body to a file; nothing of it stays when the block ends.

    Raises:
        Overloaded: Too much is being uploaded already.
        Unavailable: The disk is full.
    """
    with room.claimed(request), working(settings, "body") as folder:
        path = folder / "upload"
        with path.open("wb") as file:
            async for chunk in request.stream():
                await asyncio.to_thread(file.write, chunk)
        yield path
