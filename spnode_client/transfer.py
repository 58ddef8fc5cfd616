"""How much of a large file is sent or fetched, in a bar while somebody looks."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from spnode_client.client import Client
from spnode_client.terminal import err, harmless

LARGE_BYTES = 8 << 20
"""Less is over before it could be read."""


@contextlib.contextmanager
def uploading(client: Client, path: str | Path, quiet: bool = False) -> Iterator[None]:
    """Show how much of a file is sent, then that the service checks it.

    Args:
        client: Sends it, within the block.
        path: The file.
        quiet: Show nothing, as where there is no terminal.
    """
    name = Path(path).name
    with _shown(client, f"sending {name}", f"checking {name}", quiet):
        yield


@contextlib.contextmanager
def downloading(client: Client, what: str, quiet: bool = False) -> Iterator[None]:
    """Show how much of a file is fetched; arguments as for ``uploading``."""
    with _shown(client, f"fetching {what}", f"fetching {what}", quiet):
        yield


@contextlib.contextmanager
def _shown(client: Client, first: str, last: str, quiet: bool) -> Iterator[None]:
    if quiet or not err.is_terminal:
        yield
        return
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
    ) as bar:
        task = bar.add_task(harmless(first), total=None, visible=False)

        def tell(done: int, total: int | None) -> None:
            said = last if total is not None and done >= total else first
            is_large = max(done, total or 0) >= LARGE_BYTES
            bar.update(
                task,
                description=harmless(said),
                completed=done,
                total=total,
                visible=is_large,
            )

        client.transport.on_bytes = tell
        try:
            yield
        finally:
            client.transport.on_bytes = None
