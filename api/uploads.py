"""Bodies that are files: streamed to a folder that goes when they are dealt with."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.requests import Request

from services.settings import Settings
from services.work_folder import working


@contextlib.asynccontextmanager
async def received(request: Request, settings: Settings) -> AsyncIterator[Path]:
    """Write a request's body to a file; nothing of it stays when the block ends."""
    with working(settings, "body") as folder:
        path = folder / "upload"
        with path.open("wb") as file:
            async for chunk in request.stream():
                await asyncio.to_thread(file.write, chunk)
        yield path
