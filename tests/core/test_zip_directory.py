"""Zips of very many entries are refused before they are read."""

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from spnode_core.artifact_file import read_spec
from spnode_core.errors import ArtifactError, InvalidInput
from spnode_core.npz import open_npz, read_npz
from spnode_core.zip_directory import MOST_BYTES, check_directory


def many(count: int) -> bytes:
    """A file that is little else than a directory of so many empty entries."""
    with io.BytesIO() as made:
        with zipfile.ZipFile(made, "w") as archive:
            archive.writestr("a", b"")
        whole = made.getvalue()
    begin = whole.index(b"PK\1\2")
    end = whole.index(b"PK\5\6")
    directory = whole[begin:end] * count
    counts = struct.pack("<2H", *[min(count, 0xFFFF)] * 2)
    sizes = struct.pack("<2L", len(directory), begin)
    return whole[:begin] + directory + b"PK\5\6\0\0\0\0" + counts + sizes + b"\0\0"


def long_form(size: int, *, told: int = 0) -> bytes:
    """The ends of a directory of which only the long form tells the size."""
    long = b"PK\6\6" + bytes(36) + struct.pack("<2Q", size, 0)
    locator = b"PK\6\7" + bytes(16)
    return (
        bytes(100)
        + long
        + locator
        + b"PK\5\6"
        + bytes(8)
        + struct.pack("<2LH", told, 0, 0)
    )


def test_a_file_of_a_million_entries_costs_nothing(tmp_path) -> None:
    path = tmp_path / "many"
    path.write_bytes(many(1_000_000))
    tracemalloc.start()
    with pytest.raises(InvalidInput, match="directory of 47000000 bytes"):
        read_npz(path, allowed=("a",), limit_bytes=2**30)
    with (
        pytest.raises(InvalidInput, match="many: found a zip"),
        open_npz(path, allowed=("a",), limit_bytes=2**30),
    ):
        pass
    with pytest.raises(ArtifactError, match="directory of 47000000 bytes"):
        read_spec(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**20


@pytest.mark.parametrize("comment", [b"", b"x", b"PK\5\6", b"z" * 65_535])
def test_the_length_is_found_behind_any_comment(comment) -> None:
    with io.BytesIO() as made:
        with zipfile.ZipFile(made, "w") as archive:
            for i in range(2000):
                archive.writestr(f"a member of number {i}", b"")
            archive.comment = comment
        # zipfile, too, believes the last end that it finds.
        is_hidden = comment == b"PK\5\6"
        if is_hidden:
            check_directory(made, "zip")
            with pytest.raises(zipfile.BadZipFile):
                zipfile.ZipFile(made)
            return
        with pytest.raises(InvalidInput, match="zip: found a zip with a directory"):
            check_directory(made, "zip")


@pytest.mark.parametrize("told", [0, 10, 0xFFFFFFFF])
def test_the_long_form_counts_too(told) -> None:
    with pytest.raises(InvalidInput):
        check_directory(io.BytesIO(long_form(MOST_BYTES + 1, told=told)), "zip")


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\5\6", bytes(70_000)])
def test_what_is_no_zip_is_left_to_its_reader(content) -> None:
    file = io.BytesIO(content)
    check_directory(file, "zip")
    assert file.tell() == 0


def test_what_numpy_writes_is_read(tmp_path) -> None:
    arrays = {f"x{i}": np.arange(3.0) for i in range(40)}
    np.savez(tmp_path / "a.npz", **arrays)
    found = read_npz(tmp_path / "a.npz", allowed=tuple(arrays), limit_bytes=2**20)
    assert found.keys() == arrays.keys()
