"""Which format a file has, by its content, and the arrays of a dataset in it.

::

    npz                                   spnode_core.npz
    HDF5, MATLAB 7.3                      h5py       hdf5.py
    netCDF 3 and 4, zipped Zarr           xarray     labelled.py
    MATLAB 5                              scipy      matlab.py
    CSV, Parquet: a row for every sample  pandas     table.py, delimited.py

Names of files mean nothing, since an upload has none. No reader unpickles anything,
follows a link out of the file, or takes memory before sizes are known.
"""

import codecs
import importlib
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spnode_core.dataset_checks import KEYS
from spnode_core.errors import InvalidInput
from spnode_core.npz import ZIP_FAULTS, read_npz

READABLE = "npz, HDF5, netCDF, Zarr (zip), MATLAB, Parquet or CSV"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_MATLAB5 = b"MATLAB 5.0 MAT-file"
_MATLAB7 = b"MATLAB 7.3 MAT-file"
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
"""How a text in UTF-16 begins, as Excel writes "Unicode text"."""
_MODULES = {
    "HDF5": "hdf5",
    "MATLAB 7.3": "hdf5",
    "netCDF 3": "labelled",
    "Zarr": "labelled",
    "MATLAB 5": "matlab",
    "Parquet": "table",
    "CSV": "table",
}


def read_arrays(path: Path, limit_bytes: int) -> Mapping[str, Any]:
    """The arrays of a dataset by name, from a file that need not be trusted.

    Args:
        path: The file, or the folder of a Zarr store.
        limit_bytes: Most bytes that the arrays may take in memory.

    Raises:
        InvalidInput: The file cannot be used, and why.
    """
    kind = kind_of(path)
    if kind == "npz":
        return read_npz(path, allowed=KEYS, limit_bytes=limit_bytes)
    try:
        module = importlib.import_module(f"spnode_core.formats.{_MODULES[kind]}")
    except ModuleNotFoundError as error:
        raise InvalidInput(
            "file",
            found=f"{kind}, but no package {error.name!r}",
            expected="an npz file, or pip install 'spnode[formats]'",
        ) from error
    return module.read(path, kind, limit_bytes)


def kind_of(path: Path) -> str:
    """The format of a file.

    Raises:
        InvalidInput: There is no such file, or it has none of the formats.
    """
    if path.is_dir():
        if not any((path / name).exists() for name in ("zarr.json", ".zgroup")):
            raise InvalidInput("file", found=f"a folder: {path}", expected=READABLE)
        return "Zarr"
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except FileNotFoundError as error:
        raise InvalidInput(
            "file", found=f"no such file: {path}", expected=READABLE
        ) from error
    except OSError as error:
        raise InvalidInput(
            "file", found=f"{error.strerror}: {path}", expected="a file to read"
        ) from error
    if not head:
        raise InvalidInput(
            "file", found="an empty file", expected=f"a complete one: {READABLE}"
        )
    if head.startswith(b"PK"):
        return "Zarr" if _is_zarr(path) else "npz"
    if head.startswith(_MATLAB7):
        return "MATLAB 7.3"
    # An HDF5 file may begin with a block of its user's, of 512 bytes or twice that.
    if _HDF5 in (head[:8], head[512:520]):
        return "HDF5"
    if head.startswith(b"CDF") and head[3:4] in (b"\1", b"\2", b"\5"):
        return "netCDF 3"
    if head.startswith(_MATLAB5):
        return "MATLAB 5"
    if head.startswith(b"PAR1"):
        return "Parquet"
    if _is_table(head):
        return "CSV"
    raise InvalidInput(
        "file", found=f"a file that begins with {head[:16]!r}", expected=READABLE
    )


def check_size(size_bytes: int, limit_bytes: int) -> None:
    """Refuse arrays that take too much memory, before they are read.

    Raises:
        InvalidInput: They do.
    """
    if size_bytes > limit_bytes:
        raise InvalidInput(
            "file",
            found=f"arrays of {size_bytes} bytes",
            expected=f"at most {limit_bytes} bytes",
        )


def _is_zarr(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (*ZIP_FAULTS, OSError, ValueError):
        return False
    return any(
        name.rpartition("/")[2] in ("zarr.json", ".zgroup", ".zmetadata")
        for name in names
    )


def _is_table(head: bytes) -> bool:
    if head.startswith(UTF_16):
        text = head[: len(head) // 2 * 2].decode("utf-16", "replace")
    else:
        try:
            text = head.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            # The end of what was read may cut a letter in two.
            if error.start < len(head) - 3:
                return _is_older_table(head)
            text = head[: error.start].decode("utf-8-sig")
    first = _first_line(text)
    return bool(first) and (first.isprintable() or "\t" in first)


def _is_older_table(head: bytes) -> bool:
    """Whether it is text with letters of one byte: their place is told later."""
    first = _first_line(head.decode("latin-1"))
    has_cells = first.startswith("#") or any(each in first for each in ",;\t")
    return has_cells and not _CONTROL.search(head)


def _first_line(text: str) -> str:
    """The first that is no comment, or a comment where there are no others."""
    lines = [line for line in text.splitlines() if line]
    return next(
        (line for line in lines if not line.startswith("#")), "".join(lines[:1])
    )
