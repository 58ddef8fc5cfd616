"""Blobs: immutable contents under keys, in a local folder or an S3 bucket.

Every key is written once (a second put of it is a success) and nearly all end in the
SHA-256 of their content, which every read checks. What refers to a blob is committed
after it, so a reference without its blob never exists. The local store of obstore never
syncs: we sync the file and its folders before ``put`` returns.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, from_url

from services.errors import NotFound, ServiceError, Unavailable
from services.identity import DIGEST, sha256

# obstore writes `name#1` and then renames or links it.
_UNFINISHED = re.compile(r"#[0-9]+$")


class Damaged(ServiceError):
    """A blob whose content is not what its key says."""

    default_code = "damaged"


class Blobs:
    """Immutable contents under keys like ``datasets/<sha256>``.

    Args:
        url: ``file:///folder`` or ``s3://bucket/prefix``; S3's credentials and endpoint
            come from the usual ``AWS_…`` variables.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        parts = urlsplit(url)
        self.root: Path | None = None
        if parts.scheme == "file":
            self.root = Path(unquote(parts.path))
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._store: Any = LocalStore(self.root)
        else:
            self._store = from_url(url)

    def put(self, key: str, content: bytes | Path) -> None:
        """Keep a content under a key, once; a key that is there already is left alone.

        Raises:
            Unavailable: The store does not answer, or is full.
        """
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        with _translated(key):
            try:
                obstore.put(self._store, key, content, mode="create")
            except AlreadyExistsError:
                # A power cut between our link and our sync can leave a short file,
                # and a sweep may just have deleted the one that was there.
                if self.root is not None and _size(self.root / key) != size:
                    obstore.put(self._store, key, content, mode="overwrite")
        if self.root is not None:
            try:
                _sync(self.root, self.root / key)
            except FileNotFoundError as error:
                raise Unavailable(f"{key!r} was deleted meanwhile") from error

    def put_content(self, prefix: str, content: bytes | Path) -> str:
        """Keep a content under ``prefix/<its sha256>``; return the digest."""
        digest = sha256(content)
        self.put(f"{prefix}/{digest}", content)
        return digest

    def get(self, key: str) -> bytes:
        """Return a content.

        Raises:
            NotFound: There is no such key.
            Damaged: The content is not the one that the key names.
            Unavailable: The store does not answer.
        """
        with _translated(key):
            content = bytes(obstore.get(self._store, key).bytes())
        _check(key, sha256(content))
        return content

    def download(self, key: str, path: Path) -> None:
        """Write a content to a file, which appears only when it is whole and right.

        Raises:
            NotFound: There is no such key.
            Damaged: The content is not the one that the key names.
            Unavailable: The store does not answer.
        """
        part = path.with_name(path.name + ".part")
        running = hashlib.sha256()
        try:
            with _translated(key), part.open("wb") as file:
                for chunk in obstore.get(self._store, key).stream():
                    running.update(chunk)
                    file.write(chunk)
            _check(key, running.hexdigest())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def verify(self, key: str) -> None:
        """Read a content to its end and check it.

        Raises:
            NotFound: There is no such key.
            Damaged: The content is not the one that the key names.
            Unavailable: The store does not answer.
        """
        running = hashlib.sha256()
        for part in self.stream(key):
            running.update(part)
        _check(key, running.hexdigest())

    def stream(
        self, key: str, *, start: int = 0, end: int | None = None
    ) -> Iterator[bytes]:
        """Yield a content from ``start`` up to, not including, ``end``.

        Raises:
            NotFound: There is no such key.
            Unavailable: The store does not answer.
        """
        with _translated(key):
            if start == 0 and end is None:
                yield from map(bytes, obstore.get(self._store, key).stream())
                return
            last = self.size(key) if end is None else end
            yield bytes(obstore.get_range(self._store, key, start=start, end=last))

    def size(self, key: str) -> int:
        """Return the size of a content in bytes.

        Raises:
            NotFound: There is no such key.
        """
        with _translated(key):
            return int(obstore.head(self._store, key)["size"])

    def exists(self, key: str) -> bool:
        """Whether there is such a key."""
        try:
            self.size(key)
        except NotFound:
            return False
        return True

    def delete(self, key: str) -> None:
        """Forget a content; a key that is not there is left alone."""
        try:
            with _translated(key):
                obstore.delete(self._store, key)
        except NotFound:
            return

    def list(self, prefix: str) -> Iterator[str]:
        """Yield every key below a prefix."""
        yield from (key for key, _ in self.list_dated(prefix))

    def list_dated(self, prefix: str) -> Iterator[tuple[str, datetime]]:
        """Yield every key below a prefix, and when it was written."""
        with _translated(prefix):
            for page in obstore.list(self._store, prefix):
                yield from ((each["path"], each["last_modified"]) for each in page)

    def sweep_unfinished(self, before: datetime) -> None:
        """Delete files that puts of killed processes left beside their keys.

        Args:
            before: Younger ones may still be written to.

        Raises:
            Unavailable: The store does not answer.
        """
        if self.root is None:
            return
        with _translated(""):
            for path in self.root.rglob("*#*"):
                is_left = _UNFINISHED.search(path.name) and path.is_file()
                if is_left and path.stat().st_mtime < before.timestamp():
                    path.unlink(missing_ok=True)

    def ping(self) -> None:
        """Look for a key that is not there, to see whether the store answers.

        Raises:
            Unavailable: It does not.
        """
        self.exists("ping")


@contextmanager
def _translated(key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound("blob", key) from error
    except (BaseError, OSError) as error:
        raise Unavailable(f"the store does not answer for {key!r}: {error}") from error


def _check(key: str, digest: str) -> None:
    named = key.rsplit("/", 1)[-1]
    if DIGEST.fullmatch(named) and named != digest:
        raise Damaged(
            f"blob {key!r} is damaged: its content has the digest {digest}; restore it "
            "from a backup"
        )


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _sync(root: Path, path: Path) -> None:
    folders = [path, *(p for p in path.parents if p.is_relative_to(root))]
    for each in folders:
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
