"""The two forms of an archive: a zip file, and a folder of the same members.

Both are read without trust. Members are never unpacked under names of their own: what
is read is asked for by a name that was made here from digests. A zip holds stored
members that are together no larger than the file; a folder's links, pipes and other
odd files are refused, and what its manifest does not name is not looked at.
"""

import hashlib
import os
import re
import shutil
import stat
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from services.errors import Conflict, Invalid
from services.identity import sha256
from services.transfer.manifest import (
    ARTIFACTS,
    DATASETS,
    JSON_LIMIT_BYTES,
    MANIFEST,
    MEMBER,
    RECORDS,
    Manifest,
    Part,
    check_values,
    decoded,
    encoded,
    record_name,
    unfit,
)
from spnode_core.atomic import replacing
from spnode_core.npz import EARLIEST, ZIP_FAULTS, is_of_this_machine

ZIP = ".zip"
_PARTS = (RECORDS, ARTIFACTS, DATASETS)
# What an export that was killed leaves beside the members.
_UNFINISHED = re.compile(r"\.(.+)\.[0-9]+\.tmp")
_ENCRYPTED = 0x1
_PIECE = 2**20


class AbstractWriter(ABC):
    """An archive that is being written; it counts only once it has its manifest."""

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether there is such a member already, whole."""

    @abstractmethod
    def add(self, name: str, content: bytes | Path) -> None:
        """Add a member."""

    def add_record(self, record: bytes) -> str:
        """Add a record under its digest; return the digest."""
        digest = hashlib.sha256(record).hexdigest()
        if not self.has(record_name(digest)):
            self.add(record_name(digest), record)
        return digest

    def finish(self, manifest: Manifest) -> None:
        """Add the manifest, the last member.

        Raises:
            Invalid: It is larger than one that is read.
        """
        data = encoded(manifest)
        _check_size(MANIFEST, len(data))
        check_values(data, MANIFEST)
        self.add(MANIFEST, data)


class AbstractReader(ABC):
    """An archive that is being read; its author is not trusted."""

    manifest: Manifest

    @abstractmethod
    def open(self, name: str) -> tuple[IO[bytes], int]:
        """Open a member; return its stream and its size in bytes."""

    def record(self, kind: type[Part], digest: str) -> Part:
        """Return a record.

        Raises:
            Invalid: It is not there, not of this digest, or no such record.
        """
        name = record_name(digest)
        data = self.read(name)
        _check(name, digest, hashlib.sha256(data).hexdigest())
        return decoded(kind, data, name)

    def extract(self, prefix: str, digest: str, path: Path) -> None:
        """Write a content to ``path``, its digest verified.

        Raises:
            Invalid: It is not there, or not of this digest.
        """
        name, running = f"{prefix}/{digest}", hashlib.sha256()
        stream, _ = self.open(name)
        with stream, path.open("wb") as file, _named(name):
            while piece := stream.read(_PIECE):
                running.update(piece)
                file.write(piece)
        _check(name, digest, running.hexdigest())

    def read(self, name: str) -> bytes:
        """Return the manifest or a record.

        Raises:
            Invalid: It is not there, or too large.
        """
        stream, size = self.open(name)
        with stream, _named(name):
            _check_size(name, size)
            return stream.read(JSON_LIMIT_BYTES)


@contextmanager
def writing(target: Path) -> Iterator[AbstractWriter]:
    """Write an archive: a file where the name ends in .zip, else a folder.

    A file appears when it is whole. A folder takes its new manifest last, so that it is
    at every moment the archive before or the new one; one that was killed before its
    first manifest is gone on with.

    Raises:
        Conflict: There is something else under this name.
    """
    if target.suffix.lower() == ZIP and not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            replacing(target) as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
        ):
            yield _ZipWriter(archive)
        return
    if target.exists() and not target.is_dir():
        raise Conflict(f"{target} is a file whose name does not end in {ZIP}")
    if target.is_dir() and not _is_of_export(target):
        raise Conflict(f"{target} is a folder of other files; choose a new one")
    for part in _PARTS:
        (target / part).mkdir(parents=True, exist_ok=True)
    yield _FolderWriter(target)


@contextmanager
def reading(source: Path) -> Iterator[AbstractReader]:
    """Open an archive and read its manifest.

    Raises:
        Invalid: It is no archive; the field says which member is wrong.
    """
    with ExitStack() as stack:
        if source.is_dir():
            root = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, root)
            reader: AbstractReader = _FolderReader(root)
        else:
            try:
                archive = stack.enter_context(zipfile.ZipFile(source))
            except (*ZIP_FAULTS, OSError, ValueError) as error:
                expected = "a file or a folder that `registry export` wrote"
                raise unfit(source.name, found=str(error), expected=expected) from error
            reader = _ZipReader(archive, source.stat().st_size)
        reader.manifest = decoded(Manifest, reader.read(MANIFEST), MANIFEST)
        if isinstance(reader, _ZipReader):
            reader.check_complete()
        yield reader


def _is_of_export(folder: Path) -> bool:
    """Whether a folder is an archive, or of one that was not finished."""
    if (folder / MANIFEST).is_file():
        return True
    for each in folder.iterdir():
        if each.name in _PARTS and each.is_dir():
            names = [f"{each.name}/{member.name}" for member in each.iterdir()]
        else:
            names = [each.name]
        if not all(map(_is_member, names)):
            return False
    return True


def _is_member(name: str) -> bool:
    folder, _, file = name.rpartition("/")
    if unfinished := _UNFINISHED.fullmatch(file):
        file = unfinished[1]
    name = f"{folder}/{file}" if folder else file
    return name == MANIFEST or MEMBER.fullmatch(name) is not None


class _ZipWriter(AbstractWriter):
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._names: set[str] = set()

    def has(self, name: str) -> bool:
        return name in self._names

    def add(self, name: str, content: bytes | Path) -> None:
        self._names.add(name)
        member = zipfile.ZipInfo(name, EARLIEST)
        if isinstance(content, bytes):
            self._archive.writestr(member, content)
            return
        member.file_size = content.stat().st_size
        with content.open("rb") as file, self._archive.open(member, "w") as to:
            shutil.copyfileobj(file, to, _PIECE)


class _FolderWriter(AbstractWriter):
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def has(self, name: str) -> bool:
        path = self._folder / name
        return path.is_file() and sha256(path) == path.name.removesuffix(".json")

    def add(self, name: str, content: bytes | Path) -> None:
        with replacing(self._folder / name) as to:
            if isinstance(content, bytes):
                to.write(content)
            else:
                with content.open("rb") as file:
                    shutil.copyfileobj(file, to, _PIECE)


class _ZipReader(AbstractReader):
    def __init__(self, archive: zipfile.ZipFile, size_bytes: int) -> None:
        self._archive = archive
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in archive.infolist():
            self._check(member)
            self._members[member.filename] = member
        # Members may not share bytes of the file: ever so many would fit into it.
        total = sum(member.file_size for member in self._members.values())
        if total > size_bytes:
            raise unfit(
                "archive",
                found=f"members of {total} bytes in a file of {size_bytes}",
                expected="members that lie beside each other",
            )

    def _check(self, member: zipfile.ZipInfo) -> None:
        name = member.filename
        shown = repr(name[:100])
        mode = member.external_attr >> 16
        if name != MANIFEST and not MEMBER.fullmatch(name):
            expected = f"{MANIFEST}, or a kind and a digest"
            raise unfit(shown, found="an unknown member", expected=expected)
        if name in self._members:
            raise unfit(shown, found="the member twice", expected="it once")
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise unfit(shown, found="a link or an odd file", expected="a plain file")
        is_stored = member.compress_type == zipfile.ZIP_STORED
        if not is_stored or member.compress_size != member.file_size:
            raise unfit(shown, found="a compressed member", expected="a stored one")
        if member.flag_bits & _ENCRYPTED:
            raise unfit(shown, found="an encrypted member", expected="a plain one")

    def check_complete(self) -> None:
        """Refuse an archive that lacks or adds a member."""
        named = self.manifest.members() | {MANIFEST}
        odd = sorted(named ^ set(self._members))
        if odd:
            found = "it is missing" if odd[0] in named else "a member nobody names"
            raise unfit(odd[0], found=found, expected=f"what {MANIFEST} names")

    def open(self, name: str) -> tuple[IO[bytes], int]:
        member = self._members.get(name)
        if member is None:
            raise unfit(name, found="no such member", expected="it in the archive")
        try:
            return self._archive.open(member), member.file_size
        except (*ZIP_FAULTS, OSError, ValueError) as error:
            if is_of_this_machine(error):
                raise
            raise _damaged(name, error) from error


class _FolderReader(AbstractReader):
    def __init__(self, root: int) -> None:
        self._root = root

    def open(self, name: str) -> tuple[IO[bytes], int]:
        *folders, file = name.split("/")
        with ExitStack() as stack:
            at = self._root
            try:
                for folder in folders:
                    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                    at = os.open(folder, flags, dir_fd=at)
                    stack.callback(os.close, at)
                # A pipe without a writer would be waited for.
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
                found = os.open(file, flags, dir_fd=at)
            except OSError as error:
                said = error.strerror or str(error)
                raise unfit(name, found=said, expected="a plain file") from error
            stream = os.fdopen(found, "rb")
        status = os.fstat(found)
        if not stat.S_ISREG(status.st_mode):
            stream.close()
            raise unfit(name, found="an odd file", expected="a plain file")
        return stream, status.st_size


def _check_size(name: str, size_bytes: int) -> None:
    if size_bytes > JSON_LIMIT_BYTES:
        expected = f"at most {JSON_LIMIT_BYTES}"
        raise unfit(name, found=f"{size_bytes} bytes", expected=expected)


def _check(name: str, digest: str, found: str) -> None:
    if found != digest:
        raise unfit(name, found=f"a content of SHA-256 {found}", expected=digest)


@contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except ZIP_FAULTS as error:
        raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> Invalid:
    found = f"a damaged member ({error})"
    return unfit(name, found=found, expected="a complete archive")
