"""Reading npz containers from anywhere, and writing them so that bytes repeat.

``numpy.load`` trusts what a file says about itself. Here sizes are checked before
anything is allocated, nothing is unpickled, and every fault names the member.
"""

import contextlib
import errno
import io
import math
import struct
import sys
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from spnode_core.atomic import replacing
from spnode_core.errors import InvalidInput, one_of
from spnode_core.zip_directory import check_directory

EARLIEST = (1980, 1, 1, 0, 0, 0)
"""Time stamp of every member that this library writes: the first a zip can hold."""
ZIP_FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OverflowError,
    RuntimeError,  # encrypted, or packed in a way that is not known
    UnicodeDecodeError,
)
"""What ``zipfile`` raises for archives that are damaged or forged."""
_KINDS = "fiubUS"
_MOST_AXES = 32


def read_npz(
    source: Path | IO[bytes], *, allowed: Collection[str], limit_bytes: int
) -> dict[str, np.ndarray]:
    """Read the arrays of an npz file whose author is not trusted.

    Args:
        source: The file, or its content as a stream.
        allowed: Names that the file may hold.
        limit_bytes: Most bytes that all members may have after decompression.

    Returns:
        The arrays by name.

    Raises:
        InvalidInput: The file is missing, damaged, too large, pickled, or holds a name
            that is not allowed.
    """
    with _named_file(source), _opened(source) as archive:
        members = _members(archive, allowed, limit_bytes)
        return {
            name: _read_member(archive, member, name)
            for name, member in members.items()
        }


class Member:
    """One array of an npz file, read as a whole or by rows, in order.

    Args:
        name: What it is called, for errors.
        stream: The bytes of its npy form.
        size_bytes: How many there are.

    Raises:
        InvalidInput: It is pickled, or shorter than it says.
    """

    def __init__(self, name: str, stream: IO[bytes], size_bytes: int) -> None:
        self.name = name
        self._stream = stream
        with _named_faults(name):
            self.shape, self._fortran, self.dtype = _header(stream)
        if self.dtype.hasobject or self.dtype.kind not in _KINDS:
            raise InvalidInput(
                name,
                found=f"dtype {self.dtype}"
                + (" (pickled)" if self.dtype.hasobject else ""),
                expected="real numbers or text, for nothing is unpickled: names by "
                "np.array(names, dtype=str), trajectories of different lengths padded "
                "to one length, with lengths beside them"
                if self.dtype.hasobject
                else "real numbers or text",
            )
        self._left = self.shape[0] if self.shape else 0
        # The header's claim is checked before memory is taken for it.
        claimed = math.prod(self.shape) * self.dtype.itemsize
        if claimed > size_bytes:
            raise InvalidInput(
                name,
                found=f"{size_bytes} bytes",
                expected=f"{claimed} for shape {self.shape} and dtype {self.dtype}",
            )

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def whole(self) -> np.ndarray:
        """All of the array, where nothing of it was read before.

        Raises:
            InvalidInput: The file is damaged.
        """
        flat = self._read(math.prod(self.shape))
        with _named_faults(self.name):
            return flat.reshape(self.shape, order="F" if self._fortran else "C")

    def rows(self, count: int) -> np.ndarray:
        """The next rows, fewer where there are no more.

        Raises:
            InvalidInput: The file is damaged, or keeps the array by columns.
        """
        if self._fortran and len(self.shape) > 1:
            raise InvalidInput(
                self.name,
                found="an array in Fortran order",
                expected="C order: numpy.ascontiguousarray gives it",
            )
        count = min(count, self._left)
        self._left -= count
        flat = self._read(count * math.prod(self.shape[1:]))
        with _named_faults(self.name):
            return flat.reshape(count, *self.shape[1:])

    def _read(self, count: int) -> np.ndarray:
        wanted = count * self.dtype.itemsize
        with _named_faults(self.name):
            data = self._stream.read(wanted)
        if len(data) != wanted:
            raise InvalidInput(
                self.name,
                found=f"{len(data)} bytes",
                expected=f"{wanted} for shape {self.shape}",
            )
        array = np.frombuffer(data, self.dtype)
        check_text(self.name, array)
        return array


@contextlib.contextmanager
def open_npz(
    path: Path, *, allowed: Collection[str], limit_bytes: int
) -> Iterator[dict[str, Member]]:
    """Open an npz file whose author is not trusted, to read its arrays by rows.

    Args:
        path: The file.
        allowed: Names that it may hold.
        limit_bytes: Most bytes that all members may have after decompression.

    Raises:
        InvalidInput: As ``read_npz``.
    """
    with contextlib.ExitStack() as stack:
        with _named_file(path):
            archive = stack.enter_context(_opened(path))
            infos = _members(archive, allowed, limit_bytes)
        found = {}
        for name, info in infos.items():
            with _named_faults(name):
                stream = stack.enter_context(archive.open(info))
            found[name] = Member(name, stream, info.file_size)
        yield found


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as a compressed npz file, atomically and with repeatable bytes."""
    with (
        replacing(path) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in sorted(arrays):
            buffer = io.BytesIO()
            array = np.asarray(arrays[name], order="C")
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            member = zipfile.ZipInfo(f"{name}.npy", EARLIEST)
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, buffer.getvalue())


@contextlib.contextmanager
def _opened(source: Path | IO[bytes]) -> Iterator[zipfile.ZipFile]:
    with contextlib.ExitStack() as stack:
        is_path = isinstance(source, Path)
        file = stack.enter_context(source.open("rb")) if is_path else source
        check_directory(file, source.name if is_path else "body")
        yield stack.enter_context(zipfile.ZipFile(file))


@contextlib.contextmanager
def _named_file(source: Path | IO[bytes]) -> Iterator[None]:
    name = source.name if isinstance(source, Path) else "body"
    try:
        yield
    except FileNotFoundError:
        raise InvalidInput(name, found="no such file", expected="an npz file") from None
    except IsADirectoryError:
        raise InvalidInput(name, found="a folder", expected="an npz file") from None
    except InvalidInput:
        raise
    except (*ZIP_FAULTS, ValueError, OSError) as error:
        if is_of_this_machine(error):
            raise
        raise InvalidInput(
            name,
            found=f"a file that is no complete zip archive ({error})",
            expected="an npz file as numpy.savez writes it",
        ) from error


def _members(
    archive: zipfile.ZipFile, allowed: Collection[str], limit_bytes: int
) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        if name not in allowed or not member.filename.endswith(".npy"):
            raise InvalidInput(
                _told(name),
                found="an unknown array",
                expected=one_of(name, sorted(allowed)),
            )
        if name in members:
            raise InvalidInput(name, found="the array twice", expected="it once")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # Others take as much memory as the file says.
            raise InvalidInput(
                name,
                found=f"a member packed in way {member.compress_type}",
                expected="stored, or deflated as numpy.savez_compressed does it",
            )
        members[name] = member
    total = sum(member.file_size for member in members.values())
    if total > limit_bytes:
        raise InvalidInput(
            "file",
            found=f"{total} bytes after decompression",
            expected=f"at most {limit_bytes}",
        )
    return members


def _told(name: str) -> str:
    """A name that was sent, fit for a place in an error."""
    return name[:80] if name.isprintable() and name else repr(name[:80])


def _read_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str
) -> np.ndarray:
    with _named_faults(name), archive.open(member) as stream:
        return Member(name, stream, member.file_size).whole()


def check_text(name: str, array: np.ndarray) -> None:
    """Refuse text of numbers that are no characters, which Python cannot take.

    Raises:
        InvalidInput: Names the first of them.
    """
    if array.dtype.kind != "U":
        return
    codes = np.atleast_1d(array).view(
        np.dtype(np.uint32).newbyteorder(array.dtype.byteorder)
    )
    if array.size and codes.max() > sys.maxunicode:
        raise InvalidInput(
            name, found=f"a character {codes.max():#x}", expected="text in Unicode"
        )


@contextlib.contextmanager
def _named_faults(name: str) -> Iterator[None]:
    try:
        yield
    except InvalidInput:
        raise
    except (*ZIP_FAULTS, OSError) as error:
        if is_of_this_machine(error):
            raise
        raise InvalidInput(
            name, found=f"a damaged member ({error})", expected="a complete file"
        ) from error
    except ValueError as error:
        raise InvalidInput(
            name, found=f"no numpy array ({error})", expected="an npy member"
        ) from error


def _header(stream: IO[bytes]) -> tuple:
    version = np.lib.format.read_magic(stream)
    if version not in {(1, 0), (2, 0), (3, 0)}:
        raise ValueError(f"npy format version {version}")
    return read_header(stream, version[0])


def is_of_this_machine(error: Exception) -> bool:
    """Whether the disk is at fault, and not a place that an archive names."""
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


def read_header(stream: IO[bytes], version: int) -> tuple:
    """Read the header of an npy form: its shape, whether in Fortran's order, its dtype.

    Args:
        stream: What follows the magic bytes.
        version: 1, 2 or 3.

    Raises:
        ValueError: It is none.
    """
    read = (
        np.lib.format.read_array_header_1_0
        if version == 1
        else np.lib.format.read_array_header_2_0
    )
    try:
        shape, fortran, dtype = read(stream)
    except Exception as error:  # Python's own parser reads it, and raises what it likes
        raise ValueError(f"no header ({error})") from error
    if len(shape) > _MOST_AXES or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"found the shape {str(shape)[:100]}")
    if not dtype.itemsize:
        raise ValueError(f"found the dtype {dtype}, of no size")
    return shape, fortran, dtype
