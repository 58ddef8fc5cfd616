"""npz containers in memory, read and written without a file in between.

::

    [local header | npy header | data] ...  [directory]  [end of directory]

``zipfile`` costs some 50 us a member and more, for one row as much as its rollout.
What is laid out as ``numpy.savez`` writes it is read here; anything else goes to
``spnode_core.npz``, which reads every container and names every fault.
"""

import functools
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Collection, Mapping

import numpy as np

from spnode_core.npz import read_header, read_npz

_LOCAL = struct.Struct("<4s5H3L2H")
_ENTRY = struct.Struct("<4s6H3L5H2L")
# What is read of both, the rest skipped.
_LOCAL_READ = struct.Struct("<4s22x2H")
_ENTRY_READ = struct.Struct("<4s4x2H4x3L4H6xL")
_END = struct.Struct("<4s4H2LH")
_MAGIC = b"\x93NUMPY\x01\x00"
_LENGTH = struct.Struct("<H")
_VERSION, _DATE = 20, 0x21
# Text in UTF-8, which says nothing of names that are ASCII.
_UTF8 = 0x800
_KINDS = "fiubUS"
_LONGEST_HEADER = 512
_REMEMBERED_LETTERS = 512
# Sizes and places of 32 bits; beyond, zipfile writes its longer form.
_PLAIN_BYTES = 2**32 - 2**16


class _Unusual(Exception):
    """A container that is not laid out plainly, or is damaged."""


def read_archive(
    body: bytes, *, allowed: Collection[str], limit_bytes: int
) -> dict[str, np.ndarray]:
    """Read the arrays of an npz body whose author is not trusted.

    Args:
        body: The container.
        allowed: Names that it may hold.
        limit_bytes: Most bytes that all members may have after decompression.

    Raises:
        InvalidInput: It is damaged, too large, pickled, or holds a name that is not
            allowed.
    """
    try:
        return _read_plain(body, allowed, limit_bytes)
    except (_Unusual, struct.error):
        return read_npz(io.BytesIO(body), allowed=allowed, limit_bytes=limit_bytes)


def write_archive(members: Mapping[str, np.ndarray | str | int]) -> bytes:
    """Arrays, texts and whole numbers as an npz container, without compression."""
    sizes = (each.nbytes for each in members.values() if isinstance(each, np.ndarray))
    if sum(sizes) > _PLAIN_BYTES:
        return _write_large(members)
    parts: list[bytes] = []
    directory: list[bytes] = []
    offset = 0
    for name, value in members.items():
        # Texts are the same in most answers.
        is_array = isinstance(value, np.ndarray)
        head, data, common = _member(name, value) if is_array else _same(name, value)
        parts += [head, data]
        entry = _ENTRY.pack(b"PK\x01\x02", _VERSION, *common, 0, 0, 0, 0, offset)
        directory += [entry, f"{name}.npy".encode()]
        offset += len(head) + len(data)
    length = sum(map(len, directory))
    count = len(members)
    end = _END.pack(b"PK\x05\x06", 0, 0, count, count, length, offset, 0)
    return b"".join([*parts, *directory, end])


def _member(name: str, value: np.ndarray | str | int) -> tuple[bytes, bytes, tuple]:
    """What stands before the data, the data, and what the directory repeats."""
    array = np.asarray(value)
    file_name = f"{name}.npy".encode()
    header = _npy_header(array.dtype.str, array.shape)
    data = array.tobytes()
    crc = zlib.crc32(data, zlib.crc32(header))
    size = len(header) + len(data)
    common = (_VERSION, 0, 0, 0, _DATE, crc, size, size, len(file_name), 0)
    local = _LOCAL.pack(b"PK\x03\x04", *common)
    return local + file_name + header, data, common


_remembered = functools.lru_cache(maxsize=512)(_member)


def _same(name: str, value: str | int) -> tuple[bytes, bytes, tuple]:
    is_short = isinstance(value, int) or len(value) <= _REMEMBERED_LETTERS
    return (_remembered if is_short else _member)(name, value)


def _read_plain(
    body: bytes, allowed: Collection[str], limit_bytes: int
) -> dict[str, np.ndarray]:
    end = len(body) - _END.size
    _expect(end >= 0)
    mark, disk, first, here, count, length, place, comment = _END.unpack_from(body, end)
    _expect(mark == b"PK\x05\x06" and place + length == end and here == count)
    _expect(not (disk or first or comment))
    found: dict[str, np.ndarray] = {}
    stop, total = place, 0
    for _ in range(count):
        entry = _ENTRY_READ.unpack_from(body, place)
        mark, flags, method, crc, packed, size, name_length = entry[:7]
        extra, comment, disk, offset = entry[7:]
        place += _ENTRY_READ.size
        file_name = body[place : place + name_length]
        place += name_length + extra + comment
        _expect(mark == b"PK\x01\x02" and place <= end and not disk)
        _expect(not (flags & ~_UTF8 or method) and packed == size)
        name = file_name.decode("ascii", "replace").removesuffix(".npy")
        _expect(file_name.endswith(b".npy") and name in allowed and name not in found)
        total += size
        _expect(total <= limit_bytes)
        start = _data_start(body, offset, file_name)
        _expect(start + size <= stop)
        _expect(zlib.crc32(memoryview(body)[start : start + size]) == crc)
        found[name] = _array(body, start, size)
    _expect(place == end)
    return found


def _expect(holds: bool) -> None:
    if not holds:
        raise _Unusual


def _data_start(body: bytes, offset: int, file_name: bytes) -> int:
    """Where a member's data begin, past its local header."""
    mark, name_length, extra = _LOCAL_READ.unpack_from(body, offset)
    start = offset + _LOCAL_READ.size
    name = body[start : start + name_length]
    _expect(mark == b"PK\x03\x04" and name == file_name)
    return start + name_length + extra


def _array(body: bytes, start: int, size: int) -> np.ndarray:
    _expect(body[start : start + len(_MAGIC)] == _MAGIC)
    place = start + len(_MAGIC)
    (length,) = _LENGTH.unpack_from(body, place)
    place += _LENGTH.size
    _expect(length <= _LONGEST_HEADER)
    dtype, shape, order = _described(body[place : place + length])
    place += length
    count = math.prod(shape)
    _expect(count > 0 and count * dtype.itemsize == start + size - place)
    # A copy, since what lies in the container is not aligned.
    return np.frombuffer(body, dtype, count, place).reshape(shape, order=order).copy()


@functools.lru_cache(maxsize=1024)
def _described(header: bytes) -> tuple:
    """The dtype, the shape and the order of axes that an npy header tells."""
    stream = io.BytesIO(_LENGTH.pack(len(header)) + header)
    try:
        shape, fortran, dtype = read_header(stream, 1)
    except ValueError as error:
        raise _Unusual from error
    _expect(not dtype.hasobject and dtype.kind in _KINDS and dtype.itemsize > 0)
    return dtype, shape, "F" if fortran else "C"


@functools.lru_cache(maxsize=1024)
def _npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    about = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, about)
    return buffer.getvalue()


def _write_large(members: Mapping[str, np.ndarray | str | int]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, value in members.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                array = np.asarray(value)
                np.lib.format.write_array(member, array, allow_pickle=False)
    return buffer.getvalue()
