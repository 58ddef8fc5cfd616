"""Bodies that are files: streamed to a folder that goes when they are dealt with."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.requests import Request

from services.settings import Settings


@contextlib.asynccontextmanager
async def received(request: Request, settings: Settings) -> AsyncIterator[Path]:
    """Write a request's body to a file; nothing of it stays when the block ends."""
    folder = settings.data_folder / "work"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(prefix="body-", dir=folder) as work:
        path = Path(work) / "upload"
        with path.open("wb") as file:
            async for chunk in request.stream():
                await asyncio.to_thread(file.write, chunk)
        yield path
