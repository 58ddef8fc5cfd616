"""What lies in the store and is referred to by nothing: found without the services."""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from services.blobs import Blobs

_KEEP_CHECKPOINT = ("queued", "running", "cancelled")


def orphans(
    blobs: Blobs,
    jobs: Mapping[str, Mapping[str, Any]],
    versions: Iterable[Mapping[str, Any]],
    datasets: Iterable[Mapping[str, Any]],
    older_than_s: float,
) -> Iterator[tuple[str, float]]:
    """Yield the key and the age of every content that nobody refers to.

    Args:
        blobs: The store.
        jobs: Rows by id.
        versions: Rows.
        datasets: Rows.
        older_than_s: Younger ones may be on their way to their row.
    """
    referenced = {f"artifacts/{row['digest']}" for row in versions}
    referenced |= {f"datasets/{row['digest']}" for row in datasets}
    referenced |= {
        f"checkpoints/{id}/{row['checkpoint']}"
        for id, row in jobs.items()
        if row["state"] in _KEEP_CHECKPOINT
    }
    now = time.time()
    for key, written in _listed(blobs):
        of_job = key.startswith("results/") and key.split("/")[1] in jobs
        if now - written > older_than_s and key not in referenced and not of_job:
            yield key, now - written


def _listed(blobs: Blobs) -> Iterator[tuple[str, float]]:
    """Keys and when they were written; of a folder also what puts left half done."""
    if blobs.root is None:
        yield from ((key, at.timestamp()) for key, at in blobs.list_dated(""))
        return
    for path in blobs.root.rglob("*"):
        if path.is_file():
            yield path.relative_to(blobs.root).as_posix(), path.stat().st_mtime
