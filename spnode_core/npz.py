"""Reading npz containers from anywhere, and writing them so that bytes repeat.

``numpy.load`` trusts what a file says about itself. Here sizes are checked before
anything is allocated, nothing is unpickled, and every fault names the member.
"""

import io
import math
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from spnode_core.atomic import replacing
from spnode_core.errors import InvalidInput

EARLIEST = (1980, 1, 1, 0, 0, 0)
"""Time stamp of every member that this library writes: the first a zip can hold."""
_KINDS = "fiubUS"


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
    name = source.name if isinstance(source, Path) else "body"
    try:
        with zipfile.ZipFile(source) as archive:
            members = _members(archive, allowed, limit_bytes)
            return {
                each: _read_member(archive, member, each)
                for each, member in members.items()
            }
    except FileNotFoundError:
        raise InvalidInput(name, found="no such file", expected="an npz file") from None
    except IsADirectoryError:
        raise InvalidInput(name, found="a folder", expected="an npz file") from None
    except zipfile.BadZipFile as error:
        raise InvalidInput(
            name,
            found=f"a file that is no complete zip archive ({error})",
            expected="an npz file as numpy.savez writes it",
        ) from error


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


def _members(
    archive: zipfile.ZipFile, allowed: Collection[str], limit_bytes: int
) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        if name not in allowed or not member.filename.endswith(".npy"):
            raise InvalidInput(
                repr(member.filename[:80]),
                found="an unknown array",
                expected=f"only arrays named {', '.join(sorted(allowed))}",
            )
        if name in members:
            raise InvalidInput(name, found="the array twice", expected="it once")
        members[name] = member
    total = sum(member.file_size for member in members.values())
    if total > limit_bytes:
        raise InvalidInput(
            "file",
            found=f"{total} bytes after decompression",
            expected=f"at most {limit_bytes}",
        )
    return members


def _read_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str
) -> np.ndarray:
    try:
        with archive.open(member) as stream:
            shape, fortran, dtype = _header(stream)
            if dtype.hasobject or dtype.kind not in _KINDS:
                raise InvalidInput(
                    name,
                    found=f"dtype {dtype}" + (" (pickled)" if dtype.hasobject else ""),
                    expected="real numbers or text; nothing is unpickled",
                )
            # The header's claim is checked before memory is taken for it.
            expected = math.prod(shape) * dtype.itemsize
            if expected > member.file_size:
                raise InvalidInput(
                    name,
                    found=f"{member.file_size} bytes",
                    expected=f"{expected} for shape {shape} and dtype {dtype}",
                )
            data = stream.read(expected)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise InvalidInput(
            name, found=f"a damaged member ({error})", expected="a complete file"
        ) from error
    except (ValueError, RuntimeError, NotImplementedError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(
            name, found=f"no numpy array ({error})", expected="an npy member"
        ) from error
    if len(data) != expected:
        raise InvalidInput(
            name, found=f"{len(data)} bytes", expected=f"{expected} for shape {shape}"
        )
    flat = np.frombuffer(data, dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


def _header(stream: IO[bytes]) -> tuple:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version in {(2, 0), (3, 0)}:
        return np.lib.format.read_array_header_2_0(stream)
    raise ValueError(f"npy format version {version}")
