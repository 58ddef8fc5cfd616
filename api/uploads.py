"""Bodies that are files: streamed to a folder that goes when they are dealt with.

What all of them take on the disk is bounded: a body may come slowly, so that many are
there at once.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from starlette.requests import Request

from api.room import Room
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
        self._room = Room(settings.upload_space_bytes, self._most)

    @property
    def taken(self) -> int:
        """Bytes that are claimed."""
        return self._room.taken

    @contextlib.contextmanager
    def claimed(self, request: Request) -> Iterator[None]:
        """Keep room for a body: its length, or the most where it does not say.

        One caller has half of the room, or one upload of the largest size.

        Raises:
            Overloaded: There is too little left, for all or for this caller.
        """
        given = request.headers.get("content-length", "")
        size = int(given) if given.isdecimal() else self._most
        caller = request.state.caller.id
        if full := self._room.full_for(caller, size):
            whose = "uploads of this key" if full.is_callers else "uploads"
            raise Overloaded(
                f"{whose} take {full.taken} bytes already, and there is room for "
                f"{full.limit}",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._room.take(caller, size)
        try:
            yield
        finally:
            self._room.give_back(caller, size)


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
