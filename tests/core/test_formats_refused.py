"""Files that cannot be used, or mean harm: refused with what is wrong, and where."""

import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from h5py._objects import phil

from spnode_core.dataset import load_dataset
from spnode_core.errors import InvalidInput
from tests.core.test_formats import (
    WRITERS,
    arrays,
    frame,
    write_hdf5,
    write_matlab7,
    write_netcdf,
    write_zarr,
)


def csv(text):
    return lambda path: path.write_text(text)


def zarr_of_objects(path):
    about = {"dtype": "|S1", "filters": [{"id": "pickle"}], "zarr_format": 2}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(".zgroup", '{"zarr_format": 2}')
        escaped = json.dumps(about).replace("pickle", r"\u0070ickle")
        archive.writestr("states/.zarray", escaped)


def linking_out(path):
    with h5py.File(path, "w") as file:
        file["times"] = np.arange(3.0)
        file["states"] = h5py.ExternalLink("/etc/passwd", "/states")


def stored_outside(path):
    with h5py.File(path, "w") as file:
        file["times"] = np.arange(3.0)
        file.create_dataset(
            "states", (2, 3, 1), "f8", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
        )


def virtual(path):
    """An array that is made of others', which may lie in any file."""
    layout = h5py.VirtualLayout(shape=(2, 3, 1), dtype="f8")
    layout[:] = h5py.VirtualSource("/work/other.h5", "states", shape=(2, 3, 1))
    with h5py.File(path, "w") as file:
        file["times"] = np.arange(3.0)
        file.create_virtual_dataset("states", layout)


def linking_on(path):
    """A link within the file, to one that leads out of it."""
    linking_out(path)
    with h5py.File(path, "r+") as file:
        file.move("states", "there")
        file["states"] = h5py.SoftLink("/there")


def netcdf_linking_out(path):
    write_netcdf("h5netcdf")(path, arrays())
    with h5py.File(path, "r+") as file:
        del file["y1"]
        file["y1"] = h5py.ExternalLink("/etc/passwd", "/y1")


def zarr_beside(path):
    """A store with members whose names lead out of the folder they are unpacked in."""
    write_zarr(path, arrays())
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("../beside", "/tmp/beside-of-spnode"):
            archive.writestr(name, b"not ours")


def referring(path, make):
    """A MATLAB file whose names are a cell that refers to what ``make`` makes."""
    write_matlab7(path, arrays())
    with h5py.File(path, "r+") as file:
        del file["names"]
        node = make(file)
        parts = [[node.ref]] * 2
        file.create_dataset("names", data=parts, dtype=h5py.ref_dtype)
        file["names"].attrs["MATLAB_class"] = np.bytes_("cell")


def referring_outside(path):
    def hidden(file):
        outside = [("/etc/passwd", 0, 100)]
        node = file.create_dataset("#refs#/b/c/d/e/f", (50,), "u2", external=outside)
        node.attrs["MATLAB_class"] = np.bytes_("char")
        return node

    referring(path, hidden)


def referring_by_text(path):
    write_matlab7(path, arrays())
    with h5py.File(path, "r+") as file:
        file["#refs#/b/c/d/e/out"] = h5py.ExternalLink("/work/other.h5", "/text")
        del file["names"]
        paths = np.array([["#refs#/b/c/d/e/out"]] * 2, object)
        file.create_dataset("names", data=paths, dtype=h5py.string_dtype())
        file["names"].attrs["MATLAB_class"] = np.bytes_("cell")


def referring_to_itself(path):
    write_matlab7(path, arrays())
    with h5py.File(path, "r+") as file:
        node = file["names"]
        node[...] = np.full(node.shape, node.ref, h5py.ref_dtype)


def referring_often(path):
    def large(file):
        node = file.create_dataset("#refs#/x", (2**20,), "u2", compression="gzip")
        node.attrs["MATLAB_class"] = np.bytes_("char")
        return node

    referring(path, large)
    with h5py.File(path, "r+") as file:
        reference = file["#refs#/x"].ref
        del file["names"]
        parts = np.full((5000, 1), reference, h5py.ref_dtype)
        file.create_dataset("names", data=parts, dtype=h5py.ref_dtype)
        file["names"].attrs["MATLAB_class"] = np.bytes_("cell")


def in_huge_chunks(path):
    """A few numbers of which each costs hundreds of megabytes to read."""
    with h5py.File(path, "w") as file:
        file["times"] = np.arange(3.0)
        file.create_dataset(
            "states",
            data=np.ones((2, 3, 1)),
            maxshape=(None, None, None),
            chunks=(2000, 1000, 100),
            compression="gzip",
        )


def cut_short(path):
    write_hdf5(path, arrays())
    path.write_bytes(path.read_bytes()[:-2000])


REFUSED = {
    "no trajectory": (csv("time,y1\n0,1\n1,2\n"), "columns time, y1"),
    "row numbers of pandas": (
        lambda path: frame(arrays()).to_csv(path),
        "without a name ('Unnamed: 0'); expected a name for each; pandas leaves",
    ),
    "text in a cell": (
        csv("trajectory,time,y1\n0,0,1\n0,1,two\n1,0,1\n1,1,2\n"),
        "row 2, column y1: found 'two'",
    ),
    "time goes back": (
        csv("trajectory,time,y1\n0,0,1\n0,2,1\n0,1,2\n1,0,1\n1,1,2\n"),
        "row 3, column time: found 1.0 after 2.0",
    ),
    "no time": (csv("trajectory,time,y1\n0,0,1\n0,,1\n"), "row 2, column time"),
    "a parameter that changes": (
        csv("trajectory,time,y1,parameter:k\n0,0,1,3\n0,1,1,4\n1,0,1,3\n1,1,1,3\n"),
        "row 2, column parameter:k: found 4.0 after 3.0",
    ),
    "a torn table": (csv("trajectory,time,y1\n0,0,1\n0,1,2,3,4\n"), "damaged CSV"),
    "objects in Zarr": (zarr_of_objects, "nothing is unpickled"),
    "a link out": (linking_out, "a link out of the file"),
    "an array outside": (stored_outside, "an array in another file"),
    "an array of another file's": (virtual, "an array in another file"),
    "a link to a link out": (linking_on, "a link"),
    "a link out of netCDF": (netcdf_linking_out, "a link out of the file"),
    "a text outside, by a reference": (referring_outside, "an array in another file"),
    "a path for a reference": (referring_by_text, "a cell without references"),
    "a cell in itself": (referring_to_itself, "cells in cells without end"),
    "a cut file": (cut_short, "damaged HDF5"),
    "an image": (
        lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n\xff"),
        "begins with",
    ),
    "axes of other names": (
        lambda path: xr.Dataset({"u": (("run", "t"), np.ones((2, 3)))}).to_netcdf(
            path, engine="h5netcdf"
        ),
        "axes run, t",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_with_its_place(tmp_path, name):
    write, message = REFUSED[name]
    write(tmp_path / "upload")
    with pytest.raises(InvalidInput) as refused:
        load_dataset(tmp_path / "upload")
    assert message in str(refused.value)


def test_nothing_of_a_zip_is_unpacked(tmp_path):
    folder = tmp_path / "in" / "here"
    folder.mkdir(parents=True)
    zarr_beside(folder / "upload")
    load_dataset(folder / "upload")
    names = sorted(each.name for each in tmp_path.rglob("*"))
    assert names == ["here", "in", "upload"]
    assert not Path("/tmp/beside-of-spnode").exists()


def test_what_is_referred_to_often_counts_as_often(tmp_path):
    referring_often(tmp_path / "upload")
    with pytest.raises(InvalidInput, match="at most 10000000 bytes"):
        load_dataset(tmp_path / "upload", limit_bytes=10_000_000)


@pytest.mark.parametrize("name", WRITERS)
def test_sizes_are_checked_before_memory_is_taken(tmp_path, name):
    WRITERS[name](tmp_path / "upload", arrays())
    with pytest.raises(InvalidInput, match="at most 100 bytes"):
        load_dataset(tmp_path / "upload", limit_bytes=100)


def test_a_chunk_counts_as_a_whole(tmp_path):
    in_huge_chunks(tmp_path / "upload")
    assert (tmp_path / "upload").stat().st_size < 3 * 2**20
    with pytest.raises(InvalidInput, match=r"arrays of 16000000\d\d bytes"):
        load_dataset(tmp_path / "upload", limit_bytes=100 * 2**20)


@pytest.mark.parametrize("write", [referring_by_text, referring_to_itself])
def test_an_error_that_is_kept_locks_no_other_thread_out_of_h5py(tmp_path, write):
    write(tmp_path / "upload")
    with pytest.raises(InvalidInput) as kept:
        load_dataset(tmp_path / "upload")

    def is_free():
        taken = phil.acquire(False)
        if taken:
            phil.release()
        return taken

    with ThreadPoolExecutor() as other:
        assert other.submit(is_free).result()
    assert kept.value.found


@pytest.mark.parametrize("kind", ["timedelta64[ns]", "datetime64[ns]"])
@pytest.mark.parametrize("column", ["time [s]", "y1"])
def test_dates_and_durations_are_no_numbers(tmp_path, kind, column):
    table = {"trajectory": [0, 0], "time [s]": [0.0, 1.0], "y1": [1.0, 2.0]}
    table[column] = np.array([0, 10**9]).astype(kind)
    pd.DataFrame(table).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(InvalidInput, match="convert dates and durations") as refused:
        load_dataset(tmp_path / "a.parquet")
    assert refused.value.field == f"row 1, column {column}"


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("trajectory,Time [s],time [h],y1", "two columns 'time'"),
        ("trajectory,time,T [K],T [degC]", "two columns 'T'"),
        ("trajectory,time,y1,y1 ", "two columns 'y1'"),
        ("trajectory,time,y1,y1", "two columns 'y1'"),
        ("trajectory,time,time,y1", "two columns 'time'"),
        ("Trajectory,trajectory,time,y1", "two columns 'trajectory'"),
    ],
)
def test_two_columns_of_one_name_are_refused(tmp_path, header, said):
    (tmp_path / "a.csv").write_text(f"{header}\n0,0,1,2\n0,1,2,3\n")
    with pytest.raises(InvalidInput, match=said):
        load_dataset(tmp_path / "a.csv")


def test_a_delimiter_at_the_end_of_rows_moves_no_column(tmp_path):
    (tmp_path / "a.csv").write_text(
        "trajectory,time,y1\n0,0,1.5,\n0,1,2.5,\n1,0,3,\n1,1,4,\n"
    )
    found = load_dataset(tmp_path / "a.csv")
    np.testing.assert_array_equal(found.states[0, :, 0], [1.5, 2.5])
    # As R writes row names: in front, without a name of their own.
    rows = ["trajectory,time,y1", "a,0,0,1.5", "b,0,1,2.5", "c,1,0,3", "d,1,1,4"]
    (tmp_path / "b.csv").write_text("\n".join(rows))
    assert load_dataset(tmp_path / "b.csv").digest == found.digest


def test_an_empty_table_of_dates_has_no_rows(tmp_path):
    table = pd.DataFrame({"trajectory": [], "time": [], "y1": []})
    table["time"] = pd.to_datetime(table["time"])
    table.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(InvalidInput, match="datetime64"):
        load_dataset(tmp_path / "a.parquet")
