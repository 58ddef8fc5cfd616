"""HDF5: arrays by name, netCDF 4, and what MATLAB saves as version 7.3."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from spnode_core.errors import InvalidInput
from spnode_core.formats.matlab import as_python
from spnode_core.formats.reading import check_size

_SHAPED = "arrays `states` (trajectory, time, state) and `times` at the top of the file"
# Arrays that an error names.
_TOLD = 8
_DEEPEST = 8


def read(path: Path, kind: str, limit_bytes: int) -> Mapping[str, Any]:
    """The arrays of a dataset.

    Raises:
        InvalidInput: The file is damaged, or has no such arrays.
    """
    try:
        with h5py.File(path, "r") as file:
            _check(file, limit_bytes)
            contents = _Contents(file, limit_bytes)
            # As lists: h5py holds its lock, which is that of all threads, while it
            # iterates, and for as long as anybody keeps an error from in between.
            nodes = list(file.items())
            if kind == "MATLAB 7.3":
                return {
                    name: as_python(name, contents.of_matlab(name, node))
                    for name, node in nodes
                    if name != "#refs#"
                }
            is_netcdf = _is_netcdf(file, nodes)
            if "states" in file and "times" in file and not is_netcdf:
                return {name: contents.array(name, node) for name, node in nodes}
            found = _arrays_of(file)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise InvalidInput(
            "file", found=f"damaged HDF5: {error}", expected="a whole file"
        ) from error
    if not is_netcdf:
        raise InvalidInput("file", found=found, expected=f"{_SHAPED}, or netCDF")
    # Imported here: arrays by name need no xarray.
    from spnode_core.formats import labelled

    return labelled.read(path, "netCDF 4", limit_bytes)


def _check(file: h5py.File, limit_bytes: int) -> None:
    """Refuse what lies outside the file, and sizes that memory does not hold."""
    size = 0
    for name, node in _nodes(file):
        if isinstance(node, h5py.Dataset):
            size += _size(name, node)
    check_size(size, limit_bytes)


def _size(name: str, node: h5py.Dataset) -> int:
    """Bytes that an array takes to read.

    Raises:
        InvalidInput: They lie in another file.
    """
    if node.external or node.is_virtual:
        raise InvalidInput(
            name, found="an array in another file", expected="one in this file"
        )
    item = max(node.dtype.itemsize, 1)
    # A chunk is read as a whole, however little of it is asked for.
    chunk = math.prod(node.chunks or ()) * item
    return max((node.size or 0) * item, chunk if node.size else 0)


def _nodes(group: h5py.Group, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name in list(group):
        link = group.get(name, getlink=True)
        place = f"{prefix}{name}"
        if not isinstance(link, h5py.HardLink):
            raise InvalidInput(
                place,
                found="a link out of the file"
                if isinstance(link, h5py.ExternalLink)
                else "a link",
                expected="an array",
            )
        node = group[name]
        yield place, node
        # MATLAB keeps the parts of cells in a group that has no others.
        if isinstance(node, h5py.Group) and prefix.count("/") < 4:
            yield from _nodes(node, f"{place}/")


def _arrays_of(file: h5py.File) -> str:
    """What a file holds instead, as an error tells it."""
    arrays = [
        f"{name} {node.shape}"
        for name, node in _nodes(file)
        if isinstance(node, h5py.Dataset)
    ]
    more = ", …" if len(arrays) > _TOLD else ""
    return f"HDF5 with {', '.join(arrays[:_TOLD]) or 'no arrays'}{more}"


def _is_netcdf(file: h5py.File, nodes: list[tuple[str, Any]]) -> bool:
    return "_NCProperties" in file.attrs or any(
        isinstance(node, h5py.Dataset) and "DIMENSION_LIST" in node.attrs
        for _, node in nodes
    )


class _Contents:
    """What is read of a file, checked array by array.

    A reference is an address: it leads to arrays that no walk over names meets, and to
    one array as often as it is written.

    Args:
        file: Which.
        limit_bytes: Of all that is read together.
    """

    def __init__(self, file: h5py.File, limit_bytes: int) -> None:
        self._file = file
        self._limit = limit_bytes
        self._read = 0

    def array(self, name: str, node: Any) -> np.ndarray:
        """An array by its name; texts as such.

        Raises:
            InvalidInput: It is none, lies in another file, or there is too much.
        """
        self._take(name, node)
        if h5py.check_string_dtype(node.dtype):
            return np.array(node.asstr()[()], dtype=str)
        return node[()]

    def of_matlab(self, name: str, node: Any, depth: int = 0) -> Any:
        """What MATLAB keeps in an array: axes come in the reverse order.

        Args:
            name: Of the variable.
            node: The array.
            depth: In how many cells it is.

        Raises:
            InvalidInput: As ``array``; or what should be a reference is none, or cells
                lie in cells without end.
        """
        # Running out of stack within h5py leaves its lock held, for good.
        if depth > _DEEPEST:
            raise InvalidInput(
                name, found="cells in cells without end", expected="a cell of texts"
            )
        self._take(name, node)
        kind = node.attrs.get("MATLAB_class", b"").decode()
        if "MATLAB_empty" in node.attrs:
            return np.zeros((0, 0))
        content = node[()]
        if kind == "cell":
            parts = [self._referred(name, each, depth) for each in content.T.flat]
            found = np.empty(len(parts), object)
            found[:] = parts
            return found
        if kind == "char":
            return "".join(map(chr, content.T.ravel()))
        if kind == "logical":
            return content.T.astype(bool)
        return content.T

    def _referred(self, name: str, reference: Any, depth: int) -> Any:
        # A text here would be a path, which may lead out of the file.
        if not isinstance(reference, h5py.Reference):
            raise InvalidInput(
                name, found="a cell without references", expected="texts"
            )
        return self.of_matlab(name, self._file[reference], depth + 1)

    def _take(self, name: str, node: Any) -> None:
        if not isinstance(node, h5py.Dataset):
            raise InvalidInput(name, found="a group", expected="an array")
        self._read += _size(name, node)
        check_size(self._read, self._limit)
