"""Blobs: immutable contents under keys, in a local folder or an S3 bucket.

Every key is written once (a second put of it is a success) and nearly all end in the
SHA-256 of their content, which every read checks. A second put checks it too, and
writes anew what is damaged. What refers to a blob is committed after it, so a reference
without its blob never exists. The local store of obstore never syncs, so we write files
ourselves: a file is synced before it gets its name, its folders before ``put`` returns.
"""

import hashlib
import io
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, from_url

from services.errors import NotFound, ServiceError, Unavailable, is_disk_full
from services.identity import DIGEST, sha256

# A file on its way to its name; obstore, which once wrote them, never lists these.
_UNFINISHED = re.compile(r"#[0-9]+$")

# S3 has no conditional put in parts, and one in a piece lies in memory as a whole.
LARGE_BYTES = 16 << 20
_PART_BYTES = 8 << 20
_PARTS_AT_ONCE = 4
# How often a content is put that others delete while it is.
_PUTS = 5
# Of what is asked for in part.
_PIECE_BYTES = 8 << 20


class Damaged(ServiceError):
    """A blob whose content is not what its key says."""

    default_code = "damaged"


class Lost(NotFound):
    """The store has lost the content of a dataset, a version or a result.

    Unless that was deleted just now: then what refers to it is gone too.
    """

    default_code = "lost"

    def __init__(self, key: str) -> None:
        hint = "unless it was deleted just now, restore it from a backup"
        super().__init__("blob", key, hint=hint)


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

        Where the key names a digest, what is there is read, and written anew if it is
        damaged. A large file is never in memory as a whole.

        Raises:
            ValueError: The key leads out of the store.
            FileNotFoundError: There is no such file to put.
            Unavailable: The store does not answer, or is full.
        """
        if self.root is None:
            self._put_away(key, content)
            return
        path = self.root / key
        if not Path(os.path.abspath(path)).is_relative_to(self.root.absolute()):
            raise ValueError(f"the key {key!r} leads out of the store")
        # Apart from what follows, where a file that is missing is one of the store's.
        with _opened(content) as source:
            self._put_here(self.root, key, path, source)

    def _put_here(self, root: Path, key: str, path: Path, source: IO[bytes]) -> None:
        """Put into a folder, whoever deletes there meanwhile."""
        for _ in range(_PUTS):
            try:
                with _translated(key):
                    if not self._is_kept(key):
                        _write(path, source, is_replaced=_digest(key) is not None)
                    _sync(root, path)
                    return
            except NotFound:
                # Who was refused the same content deletes it between our two steps.
                continue
        raise Unavailable(f"{key!r} was deleted again and again while it was put")

    def _put_away(self, key: str, content: bytes | Path) -> None:
        """Put into a bucket. Who overwrites a named digest writes what was there."""
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        with _put_translated(key):
            if size <= LARGE_BYTES or _digest(key) is None:
                try:
                    obstore.put(self._store, key, content, mode="create")
                    return
                except AlreadyExistsError:
                    pass
            if not self._is_kept(key):
                obstore.put(
                    self._store,
                    key,
                    content,
                    use_multipart=size > LARGE_BYTES,
                    chunk_size=_PART_BYTES,
                    max_concurrency=_PARTS_AT_ONCE,
                )

    def _is_kept(self, key: str) -> bool:
        """Whether there is nothing to put: a key of no digest is believed."""
        return self.exists(key) if _digest(key) is None else self.is_whole(key)

    def put_content(self, prefix: str, content: bytes | Path) -> str:
        """Keep a content under ``prefix/<its sha256>``; return the digest."""
        digest = sha256(content)
        self.put(f"{prefix}/{digest}", content)
        return digest

    def get(self, key: str) -> bytes:
        """Return a content.

        Raises:
            Lost: There is no such key.
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
            Lost: There is no such key.
            Damaged: The content is not the one that the key names.
            Unavailable: The store does not answer, or the file cannot be written.
        """
        part = path.with_name(path.name + ".part")
        running = hashlib.sha256()
        try:
            with _written_here():
                with part.open("wb") as file:
                    for chunk in self._chunks(key):
                        running.update(chunk)
                        file.write(chunk)
                _check(key, running.hexdigest())
                part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def _chunks(self, key: str) -> Iterator[Any]:
        """A content as it comes; what is wrong is the store's, not who reads it."""
        with _translated(key):
            yield from obstore.get(self._store, key).stream()

    def verify(self, key: str) -> None:
        """Read a content to its end and check it.

        Raises:
            Lost: There is no such key.
            Damaged: The content is not the one that the key names.
            Unavailable: The store does not answer.
        """
        for _ in self.stream(key):
            pass

    def is_whole(self, key: str) -> bool:
        """Whether the store has a content, byte for byte; it is read to its end.

        Raises:
            Unavailable: The store does not answer.
        """
        try:
            self.verify(key)
        except (NotFound, Damaged):
            return False
        return True

    def stream(
        self, key: str, *, start: int = 0, end: int | None = None
    ) -> Iterator[bytes]:
        """Yield a content from ``start`` up to, not including, ``end``.

        Of a whole one that is damaged the last piece never comes. Parts of a content of
        several pieces are not checked: who joins them has its digest.

        Raises:
            Lost: There is no such key.
            Damaged: The content is not the one that the key names.
            Unavailable: The store does not answer.
        """
        with _translated(key):
            if start == 0 and end is None:
                yield from _checked(key, obstore.get(self._store, key).stream())
                return
            size = self.size(key)
            last = size if end is None else end
            if size <= _PIECE_BYTES:
                yield self.get(key)[start:last]
                return
            for begin in range(start, last, _PIECE_BYTES):
                stop = min(begin + _PIECE_BYTES, last)
                part = obstore.get_range(self._store, key, start=begin, end=stop)
                yield bytes(part)

    def size(self, key: str) -> int:
        """Return the size of a content in bytes.

        Raises:
            Lost: There is no such key.
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
        raise Lost(key) from error
    except (BaseError, OSError) as error:
        raise Unavailable(
            f"the store does not answer for {key!r}", reason=error
        ) from error


@contextmanager
def _written_here() -> Iterator[None]:
    """A folder that is missing here, or a full disk, is no fault of the store."""
    try:
        yield
    except OSError as error:
        said = "what the store has cannot be written to this host's disk"
        if is_disk_full(error):
            said = "there is no room on this host's disk"
        raise Unavailable(said, reason=error) from error


@contextmanager
def _put_translated(key: str) -> Iterator[None]:
    """S3 answers a put with "not found" where it is the bucket that is missing."""
    try:
        with _translated(key):
            yield
    except NotFound as error:
        raise Unavailable(
            f"the store takes no {key!r}", reason=error.__cause__
        ) from error


@contextmanager
def _opened(content: bytes | Path) -> Iterator[IO[bytes]]:
    if isinstance(content, bytes):
        yield io.BytesIO(content)  # which shares them
        return
    try:
        source = content.open("rb")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unavailable("what is to be put cannot be read", reason=error) from error
    with source:
        yield source


def _digest(key: str) -> str | None:
    """The digest that a key names."""
    named = key.rsplit("/", 1)[-1]
    return named if DIGEST.fullmatch(named) else None


def _check(key: str, digest: str) -> None:
    if _digest(key) not in (None, digest):
        raise Damaged(
            f"blob {key!r} is damaged: its content has the digest {digest}; restore it "
            "from a backup"
        )


def _checked(key: str, parts: Iterable[Any]) -> Iterator[bytes]:
    """The parts of a whole content, each when the next has come."""
    running, held = hashlib.sha256(), b""
    for part in map(bytes, parts):
        if held:
            yield held
        running.update(part)
        held = part
    _check(key, running.hexdigest())
    yield held


def _write(path: Path, source: IO[bytes], *, is_replaced: bool) -> None:
    """Write a file that has its name when it is on the disk; or leave what is there."""
    source.seek(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}#{secrets.randbits(63)}")
    try:
        with part.open("xb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
        if is_replaced:
            part.replace(path)
        else:
            with suppress(FileExistsError):
                path.hardlink_to(part)
    finally:
        part.unlink(missing_ok=True)


def _sync(root: Path, path: Path) -> None:
    folders = [path, *(p for p in path.parents if p.is_relative_to(root))]
    for each in folders:
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
