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


def read(path: Path, kind: str, limit_bytes: int) -> Mapping[str, Any]:
    """The arrays of a dataset.

    Raises:
        InvalidInput: The file is damaged, or has no such arrays.
    """
    try:
        with h5py.File(path, "r") as file:
            _check(file, limit_bytes)
            if kind == "MATLAB 7.3":
                return {
                    name: as_python(name, _from_matlab(file, node))
                    for name, node in file.items()
                    if name != "#refs#"
                }
            is_netcdf = _is_netcdf(file)
            if "states" in file and "times" in file and not is_netcdf:
                return {name: _array(name, node) for name, node in file.items()}
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
            if node.external or node.is_virtual:
                raise InvalidInput(
                    name, found="an array in another file", expected="one in this file"
                )
            item = max(node.dtype.itemsize, 1)
            # A chunk is read as a whole, however little of it is asked for.
            chunk = math.prod(node.chunks or ()) * item
            size += max((node.size or 0) * item, chunk if node.size else 0)
    check_size(size, limit_bytes)


def _nodes(group: h5py.Group, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name in group:
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


def _is_netcdf(file: h5py.File) -> bool:
    return "_NCProperties" in file.attrs or any(
        isinstance(node, h5py.Dataset) and "DIMENSION_LIST" in node.attrs
        for node in file.values()
    )


def _array(name: str, node: Any) -> np.ndarray:
    if not isinstance(node, h5py.Dataset):
        raise InvalidInput(name, found="a group", expected="an array")
    if h5py.check_string_dtype(node.dtype):
        return np.array(node.asstr()[()], dtype=str)
    return node[()]


def _from_matlab(file: h5py.File, node: Any) -> Any:
    """What MATLAB keeps in an array: axes come in the reverse order."""
    kind = node.attrs.get("MATLAB_class", b"").decode()
    if not isinstance(node, h5py.Dataset):
        return node
    if "MATLAB_empty" in node.attrs:
        return np.zeros((0, 0))
    content = node[()]
    if kind == "cell":
        parts = [_from_matlab(file, file[reference]) for reference in content.T.flat]
        found = np.empty(len(parts), object)
        found[:] = parts
        return found
    if kind == "char":
        return "".join(map(chr, content.T.ravel()))
    if kind == "logical":
        return content.T.astype(bool)
    return content.T
