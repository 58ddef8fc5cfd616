"""Arrays on the wire: numpy's own container, never pickled.

``numpy.savez`` and ``numpy.load`` go through ``zipfile``, which costs a call 1 ms; the
few members of a rollout are laid out and read here, in the same form.
"""

import functools
import io
import math
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

NPZ = "application/x-npz"
FILE = "application/octet-stream"

_LOCAL = struct.Struct("<4s5H3L2H")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
# What is read of a local header and of an entry: marks, sizes, places.
_LOCAL_READ = struct.Struct("<4s22x2H")
_ENTRY_READ = struct.Struct("<4s4x2H4x3L3H8xL")
_MAGIC = b"\x93NUMPY\x01\x00"
_LENGTH = struct.Struct("<H")
_LARGEST = 2**32 - 2**16


def real_floats(value: Any, name: str = "") -> np.ndarray:
    """The numbers as float64.

    Args:
        value: Numbers, or lists of them.
        name: Of the field, for errors.

    Raises:
        ValueError: They are no numbers, in lists of different lengths, or complex:
            their imaginary part would be lost, so a complex step would find a
            derivative of 0.
    """
    head = f"{name}: " * bool(name)
    try:
        found = np.asarray(value)
        if found.dtype.kind != "c":
            return np.asarray(found, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{head}found {type(value).__name__} that is no array of numbers "
            f"({error}); expected numbers, or lists of them of one length"
        ) from error
    raise ValueError(
        f"{head}found an array of {found.dtype}; expected real numbers: derivatives "
        "are exact here, and no complex step is needed"
    )


def pack(arrays: Mapping[str, Any]) -> bytes:
    """The arrays as the bytes of an ``.npz`` file."""
    members: dict[str, Any] = {name: np.asarray(x) for name, x in arrays.items()}
    kinds = {array.dtype.kind for array in members.values()}
    if not kinds <= set("fiubUS") or sum(x.nbytes for x in members.values()) > _LARGEST:
        buffer = io.BytesIO()
        np.savez(buffer, **members)
        return buffer.getvalue()
    parts: list[bytes] = []
    directory: list[bytes] = []
    offset = 0
    for name, array in members.items():
        file_name = f"{name}.npy".encode()
        header = _header(array.dtype.str, array.shape)
        data = array.tobytes()
        crc = zlib.crc32(data, zlib.crc32(header))
        size = len(header) + len(data)
        # Version 2.0, no flags, stored, midnight of 1980-01-01.
        common = (20, 0, 0, 0, 0x21, crc, size, size, len(file_name), 0)
        entry = _ENTRY.pack(b"PK\x01\x02", 20, *common, 0, 0, 0, 0, offset)
        directory += [entry, file_name]
        parts += [_LOCAL.pack(b"PK\x03\x04", *common), file_name, header, data]
        offset += _LOCAL.size + len(file_name) + size
    length, count = sum(map(len, directory)), len(members)
    end = _END.pack(b"PK\x05\x06", 0, 0, count, count, length, offset, 0)
    return b"".join([*parts, *directory, end])


def unpack(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` file; pickled objects are refused."""
    try:
        return _unpack_plain(content)
    except (_Unusual, struct.error):
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}


def states_batch(x0: Any) -> np.ndarray:
    """One initial condition ``(state,)`` or several ``(batch, state)``, as float64."""
    array = real_floats(x0, "x0")
    if array.ndim not in (1, 2):
        raise ValueError(
            f"x0 has shape {array.shape}; expected (state,) or (batch, state)"
        )
    return array


class _Unusual(Exception):
    """A container that is not laid out as ``pack`` does; numpy is to read it."""


def _unpack_plain(content: bytes) -> dict[str, np.ndarray]:
    end = len(content) - _END.size
    _expect(end >= 0)
    mark, *_, count, length, place, comment = _END.unpack_from(content, end)
    _expect(mark == b"PK\x05\x06" and place + length == end and not comment)
    found: dict[str, np.ndarray] = {}
    for _ in range(count):
        entry = _ENTRY_READ.unpack_from(content, place)
        mark, flags, method, crc, packed, size, name_length, extra, more, offset = entry
        place += _ENTRY_READ.size
        name = content[place : place + name_length]
        place += name_length + extra + more
        _expect(mark == b"PK\x01\x02" and not (flags or method) and packed == size)
        mark, name_length, extra = _LOCAL_READ.unpack_from(content, offset)
        start = offset + _LOCAL_READ.size + name_length + extra
        _expect(mark == b"PK\x03\x04" and name.endswith(b".npy"))
        _expect(start + size <= end)
        _expect(zlib.crc32(memoryview(content)[start : start + size]) == crc)
        found[name[:-4].decode()] = _array(content, start, start + size)
    return found


def _expect(holds: bool) -> None:
    if not holds:
        raise _Unusual


def _array(content: bytes, start: int, stop: int) -> np.ndarray:
    _expect(content[start : start + len(_MAGIC)] == _MAGIC)
    (length,) = _LENGTH.unpack_from(content, start + len(_MAGIC))
    place = start + len(_MAGIC) + _LENGTH.size + length
    dtype, shape, order = _described(content[place - length : place])
    count = math.prod(shape)
    _expect(count > 0 and place + count * dtype.itemsize == stop)
    # A copy: one's own, and aligned.
    flat = np.frombuffer(content, dtype, count, place)
    return flat.reshape(shape, order=order).copy(order="K")


@functools.lru_cache(maxsize=256)
def _described(header: bytes) -> tuple:
    stream = io.BytesIO(_LENGTH.pack(len(header)) + header)
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    _expect(dtype.kind in "fiubUS" and dtype.itemsize > 0)
    return dtype, shape, "F" if fortran else "C"


@functools.lru_cache(maxsize=256)
def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    about = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, about)
    return buffer.getvalue()
