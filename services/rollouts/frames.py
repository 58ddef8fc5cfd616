"""Arrays as one run of bytes: what lies in Valkey between gateway and worker.

::

    8 bytes: length of the header | header: JSON | raw little-endian arrays

The header keeps what is not an array too. Nothing is pickled.
"""

import json
import struct
from typing import Any

import numpy as np

from services.rollouts.request import Arrays

_LENGTH = struct.Struct("<Q")


def pack(fields: dict[str, Any], arrays: Arrays) -> bytes:
    """Return fields (JSON) and arrays as bytes."""
    contents = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    layout = [
        [name, array.dtype.str, list(array.shape)] for name, array in contents.items()
    ]
    header = json.dumps({"fields": fields, "arrays": layout}).encode()
    # Arrays begin at a multiple of 8, so that they can be used where they lie.
    header += b" " * (-(len(header) + _LENGTH.size) % 8)
    parts = [_LENGTH.pack(len(header)), header]
    for array in contents.values():
        parts += [array.tobytes(), b"\0" * (-array.nbytes % 8)]
    return b"".join(parts)


def unpack(frame: bytes) -> tuple[dict[str, Any], Arrays]:
    """Return fields and arrays; the arrays are read-only views of the bytes."""
    (length,) = _LENGTH.unpack_from(frame)
    offset = _LENGTH.size + length
    header = json.loads(frame[_LENGTH.size : offset])
    arrays: Arrays = {}
    for name, dtype, shape in header["arrays"]:
        kind = np.dtype(dtype)
        count = int(np.prod(shape, dtype=np.int64))
        arrays[name] = np.frombuffer(frame, kind, count, offset).reshape(shape)
        offset += count * kind.itemsize
        offset += -offset % 8
    return header["fields"], arrays
