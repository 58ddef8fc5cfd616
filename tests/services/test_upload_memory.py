"""Memory that hostile uploads take, measured: of the parser's process and the gateway's."""

import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import h5netcdf
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
import xarray as xr
import zarr

from services.limited import environment
from spnode_core.artifact import save
from spnode_core.artifact_file import CARD
from tests.api.deployment import ROOT, deployed
from tests.core.models import small_surrogate
from tests.core.test_artifact import forge
from tests.core.test_formats_refused import in_huge_chunks
from tests.services.test_datasets import bomb
from tests.services.test_rollouts_archive import HEADER, forged

LIMIT = 15 * 2**20
MEMORY = 2 * 2**30
LIMITS = (LIMIT, 100_000, MEMORY, 60)
MOST_MB = 250.0
"""Of the parser; its libraries alone take 44 to 160."""
GROWTH_MB = 60.0
"""Of the gateway, whose parser is a process of its own."""


def lying_npz(path: Path) -> None:
    path.write_bytes(forged(HEADER.format("<f8", "(1000000000, 100)")))


def wide_csv(path: Path) -> None:
    path.write_bytes(b"trajectory,time,y\n" + b"0,0," + b"9" * (LIMIT - 100))


def deep_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        group = file
        for _ in range(2000):
            group = group.create_group("g")
        group["states"] = np.ones((2, 3, 1))


def huge_netcdf3(path: Path) -> None:
    """A header alone: records of which the file has none."""
    content = xr.Dataset({"y": (("trajectory", "time"), np.ones((2, 3)))})
    content.to_netcdf(path, engine="scipy")
    whole = path.read_bytes()
    sizes = [struct.pack(">I", 2), struct.pack(">I", 3)]
    for name, size in zip((b"trajectory\0\0", b"time"), sizes, strict=True):
        assert whole.count(name + size) == 1
        whole = whole.replace(name + size, name + struct.pack(">I", 2_000_000))
    path.write_bytes(whole)


def huge_netcdf4(path: Path) -> None:
    """Chunks that were never written: each is a fill value's."""
    with h5netcdf.File(path, "w") as file:
        file.dimensions = {"trajectory": 10_000, "time": 1_000_000}
        file.create_variable(
            "y", ("trajectory", "time"), float, chunks=(10, 1000), compression="gzip"
        )


def huge_zarr(path: Path) -> None:
    zarr_bomb(path, shape=(10_000, 1_000_000), chunks=(10, 1000))


def zarr_in_huge_chunks(path: Path) -> None:
    """A few numbers in a chunk that takes gigabytes."""
    zarr_bomb(path, shape=(2, 3), chunks=(20_000, 20_000))


def zarr_bomb(path: Path, shape: tuple[int, int], chunks: tuple[int, int]) -> None:
    with zarr.storage.ZipStore(path, mode="w") as store:
        group = zarr.create_group(store)
        group.create_array(
            "y",
            shape=shape,
            chunks=chunks,
            dtype="f8",
            dimension_names=["trajectory", "time"],
        )
        group["y"][0, 0] = 1.0
        group.create_array("time", data=np.arange(3.0), dimension_names=["time"])


def repeated_parquet(path: Path) -> None:
    """One number and one long word, of which a dictionary makes thirty gigabytes."""
    word = pa.array(["9" * 1_000_000])
    rows = np.zeros(30_000, np.int32)
    table = pa.table(
        {
            "trajectory": rows,
            "time": np.arange(30_000.0),
            "y": pa.DictionaryArray.from_arrays(rows, word),
        }
    )
    # Without the schema of Arrow it is read as words, not as a dictionary.
    pq.write_table(table, path, store_schema=False)


def long_parquet(path: Path) -> None:
    """Zeros, of which a column of megabytes takes some bytes."""
    zeros = np.zeros(20_000_000)
    table = pa.table({"trajectory": zeros, "time": zeros, "y": zeros})
    pq.write_table(table, path, compression="zstd")


def long_matlab(path: Path) -> None:
    scipy.io.savemat(path, {"states": np.zeros((3, 8_000_000))}, do_compression=True)


def matlab_cells(path: Path) -> None:
    """An array whose size its variable does not tell: it is in a cell."""
    names = np.empty((1, 1), object)
    names[0, 0] = np.zeros((3, 30_000_000))
    scipy.io.savemat(path, {"names": names}, do_compression=True)


def many_parameters(path: Path) -> None:
    """Names that nobody gave, each with its range in the summary."""
    states, times = np.ones((2, 3, 1)), np.arange(3.0)
    parameters = np.zeros((2, 900_000))
    np.savez_compressed(path, states=states, times=times, parameters=parameters)
    path.with_suffix(".npz").rename(path)


HOSTILE = {
    "zip bomb": bomb,
    "netCDF 3 of a header": huge_netcdf3,
    "netCDF 4 of fill values": huge_netcdf4,
    "Zarr of fill values": huge_zarr,
    "Zarr in huge chunks": zarr_in_huge_chunks,
    "Parquet of one long word": repeated_parquet,
    "Parquet of zeros": long_parquet,
    "MATLAB 5 of zeros": long_matlab,
    "MATLAB 5 with a cell": matlab_cells,
    "lying npz": lying_npz,
    "npz of many parameters": many_parameters,
    "HDF5 in huge chunks": in_huge_chunks,
    "deep HDF5": deep_hdf5,
    "wide CSV": wide_csv,
    "noise": lambda path: path.write_bytes(os.urandom(LIMIT)),
}


def peak_mb(source: Path, target: Path) -> float:
    """Run the parser on a file; give the most memory that it had."""
    # Read from inside: what the system tells of a child counts what it was forked from.
    program = """if True:
        import pathlib, runpy
        try:
            runpy.run_module("services.dataset_parser", run_name="__main__")
        finally:
            print(pathlib.Path("/proc/self/status").read_text())
    """
    done = subprocess.run(
        [sys.executable, "-c", program, source, target, *map(str, LIMITS)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return most_mb(done.stdout)


def most_mb(status: str) -> float:
    """The most memory that a process had, by what the system says of it."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1e3


@pytest.mark.parametrize("kind", HOSTILE)
def test_the_parser_takes_no_more_than_its_libraries(kind, tmp_path) -> None:
    HOSTILE[kind](tmp_path / "file")
    peak = peak_mb(tmp_path / "file", tmp_path / "kept")
    print(f"{kind}: {peak:.0f} MB")
    assert 20 < peak < MOST_MB


def test_the_gateway_does_not_grow(tmp_path) -> None:
    settings = {"max_upload_bytes": LIMIT, "parser_memory_bytes": MEMORY}
    with deployed(**settings) as deployment:
        by_it = deployment.start_gateway()
        status = Path(f"/proc/{deployment.processes['gateway'].pid}/status")
        headers = {"content-type": "application/octet-stream"}
        with by_it.client() as client:
            client.get("/v1/datasets")
            before = most_mb(status.read_text())
            kinds = ("zip bomb", "HDF5 in huge chunks", "npz of many parameters")
            for kind in kinds:
                HOSTILE[kind](tmp_path / "file")
                content = (tmp_path / "file").read_bytes()
                answer = client.post("/v1/datasets", content=content, headers=headers)
                assert answer.status_code in (413, 422), (kind, answer.text)

            def endless():
                for _ in range(64):
                    yield bytes(2**20)

            refused = client.post("/v1/datasets", content=endless(), headers=headers)
            assert refused.status_code == 413
            headers = {"content-type": "application/zip"}
            for card in (b"[],", b"0,"):
                path = tmp_path / "model.spnode"
                save(small_surrogate(), path)
                forged = forge(path, {CARD: b'{"x": [' + card * (LIMIT // 4)})
                content = forged.read_bytes()
                versions = "/v1/models/mine/versions"
                answer = client.post(versions, content=content, headers=headers)
                assert answer.status_code == 422, answer.text
                assert "values" in answer.text
        growth = most_mb(status.read_text()) - before
        print(f"the gateway grew by {growth:.0f} MB")
        assert growth < GROWTH_MB
