"""MATLAB files: variables by the names of a dataset's arrays.

MATLAB has no arrays of less than two axes and drops trailing axes of length 1, so they
are given their shapes here; texts are cells or rows of characters.
"""

import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.io

from spnode_core.errors import InvalidInput
from spnode_core.formats.reading import check_size

_TEXTS = ("names", "units", "parameter_names", "control_names", "conserved_names")
_COMPRESSED = 15
_CHUNK = 2**16
_OVERHEAD = 2**16
"""Names, tags and shapes, which are no arrays."""
_BYTES = {"double": 8, "int64": 8, "uint64": 8, "single": 4, "int32": 4, "uint32": 4}


def read(path: Path, kind: str, limit_bytes: int) -> Mapping[str, Any]:
    """The variables of a MATLAB 5 file.

    Raises:
        InvalidInput: The file is damaged, or too large.
    """
    try:
        _check_unpacked(path, limit_bytes)
        listed = scipy.io.whosmat(str(path))
        check_size(
            sum(math.prod(shape) * _BYTES.get(type_, 2) for _, shape, type_ in listed),
            limit_bytes,
        )
        variables = scipy.io.loadmat(str(path))
    except InvalidInput:
        raise
    except Exception as error:  # the reader raises whatever its parts raise
        raise InvalidInput(
            "file", found=f"a damaged MATLAB file: {error}", expected="a whole file"
        ) from error
    return {
        name: as_python(name, value)
        for name, value in variables.items()
        if not name.startswith("__")
    }


def _check_unpacked(path: Path, limit_bytes: int) -> None:
    """Refuse variables that unpack to too much, whatever they say of their sizes.

    SciPy unpacks a variable as a whole, to list it already.
    """
    size = 0
    with path.open("rb") as file:
        head = file.read(128)
        order: Literal["little", "big"] = "little" if head[126:128] == b"IM" else "big"
        while len(tag := file.read(8)) == 8:
            kind, left = (int.from_bytes(tag[i : i + 4], order) for i in (0, 4))
            end = file.tell() + left
            if kind == _COMPRESSED:
                unpacker = zlib.decompressobj()
                while left > 0 and (packed := file.read(min(left, _CHUNK))):
                    left -= len(packed)
                    while packed:
                        size += len(unpacker.decompress(packed, _CHUNK))
                        check_size(size, limit_bytes + _OVERHEAD)
                        packed = unpacker.unconsumed_tail
            file.seek(end)


def as_python(name: str, value: Any) -> Any:
    """A variable in the shape that arrays of a dataset have."""
    if name in _TEXTS:
        return np.array([_text(name, each) for each in _items(name, value)], dtype=str)
    if name == "time_unit":
        return _text(name, value)
    array = np.asarray(value)
    if name in ("mask", "positive") and array.dtype.kind in "bu":
        array = array.astype(bool)
    if name == "positive":
        return array.reshape(()) if array.size == 1 else array
    if name == "lengths":
        whole = array.ravel()
        is_whole = whole.dtype.kind == "f" and (whole == np.round(whole)).all()
        return whole.astype(np.int64) if is_whole else whole
    if name == "times" and 1 in array.shape:
        return array.ravel()
    if name in ("states", "controls") and array.ndim == 2:
        return array[:, :, None]
    return array


def _items(name: str, value: Any) -> list[Any]:
    array = np.asarray(value)
    if array.dtype.kind in "OU":
        return list(array.ravel())
    raise InvalidInput(
        name, found=f"an array of {array.dtype}", expected="a cell array of texts"
    )


def _text(name: str, value: Any) -> str:
    array = np.asarray(value)
    if array.dtype.kind == "U" and array.size <= 1:
        return str(array.item()).rstrip() if array.size else ""
    raise InvalidInput(
        name, found=f"an array of {array.dtype}", expected="a text, such as 'y1'"
    )
