import shutil
import subprocess
import sys
import tempfile

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import xarray as xr

from spnode_core.dataset import check_arrays, load_dataset, save_dataset
from spnode_core.errors import InvalidInput
from spnode_core.formats.reading import kind_of
from spnode_core.xarrays import from_xarray, to_xarray

TRAJECTORIES, SAMPLES = 5, 7


def arrays(*, ragged=False, missing=False, more=True):
    draws = np.random.default_rng(3)
    found = {
        "states": draws.normal(size=(TRAJECTORIES, SAMPLES, 2)),
        "times": np.geomspace(1e-3, 10.0, SAMPLES),
        "names": np.array(["y1", "y2"]),
        "units": np.array(["mol/L", "K"]),
        "time_unit": "s",
    }
    if more:
        found |= {
            "parameters": draws.uniform(size=(TRAJECTORIES, 1)),
            "parameter_names": np.array(["k1"]),
            "controls": draws.normal(size=(TRAJECTORIES, SAMPLES, 1)),
            "control_names": np.array(["v"]),
        }
    if ragged:
        found["times"] = np.sort(draws.uniform(size=(TRAJECTORIES, SAMPLES)))
        found["lengths"] = np.array([7, 3, 5, 2, 7])
    if missing:
        found["mask"] = np.ones(found["states"].shape, bool)
        found["mask"][1, 2, 0] = found["mask"][2, 1] = False
    return found


def write_hdf5(path, given):
    with h5py.File(path, "w") as file:
        for name, value in given.items():
            array = np.asarray(value)
            is_text = array.dtype.kind == "U"
            file[name] = array.astype(h5py.string_dtype()) if is_text else array


def write_matlab5(path, given):
    cells = {
        name: np.array(list(value), dtype=object)
        if isinstance(value, np.ndarray) and value.dtype.kind == "U"
        else value
        for name, value in given.items()
    }
    scipy.io.savemat(path, cells)


def write_matlab7(path, given):
    """As MATLAB writes it: a block of its own first, and axes in the reverse order."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in given.items():
            array = np.asarray(value)
            if array.dtype.kind != "U":
                kind = {"b": "logical", "i": "int64"}.get(array.dtype.kind, "double")
                stored = array.astype(np.uint8) if kind == "logical" else array
                node = file.create_dataset(name, data=np.atleast_2d(stored).T)
            elif array.shape == ():
                kind = "char"
                node = file.create_dataset(name, data=_letters(str(array)))
            else:
                kind = "cell"
                parts = []
                for index, text in enumerate(array.tolist()):
                    part = file.create_dataset(
                        f"#refs#/{name}{index}", data=_letters(text)
                    )
                    part.attrs["MATLAB_class"] = np.bytes_("char")
                    parts.append([part.ref])
                node = file.create_dataset(name, data=parts, dtype=h5py.ref_dtype)
            node.attrs["MATLAB_class"] = np.bytes_(kind)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124))


def _letters(text):
    return np.array([[ord(letter)] for letter in text], np.uint16)


def frame(given):
    dataset = check_arrays(given)
    rows = []
    for trajectory in range(dataset.trajectories):
        for k in np.flatnonzero(dataset.present[trajectory]):
            row = {"trajectory": f"run {trajectory}"}
            row["time [s]"] = dataset.times[trajectory, k]
            values = dataset.states[trajectory, k]
            row |= {"y1 [mol/L]": values[0], "y2 [K]": values[1]}
            if dataset.parameter_names:
                row["parameter:k1"] = dataset.parameters[trajectory, 0]
                row["control:v"] = dataset.controls[trajectory, k, 0]
            rows.append(row)
    return pd.DataFrame(rows)


def write_zarr(path, given, inside="."):
    with tempfile.TemporaryDirectory() as folder:
        to_xarray(check_arrays(given)).to_zarr(f"{folder}/one.zarr", consolidated=False)
        root = folder if inside else f"{folder}/one.zarr"
        shutil.make_archive(str(path), "zip", root)
    path.with_name(f"{path.name}.zip").rename(path)


def write_netcdf(engine):
    def write(path, given):
        to_xarray(check_arrays(given)).to_netcdf(path, engine=engine)

    return write


WRITERS = {
    "HDF5": write_hdf5,
    "MATLAB 5": write_matlab5,
    "MATLAB 7.3": write_matlab7,
    "netCDF 3": write_netcdf("scipy"),
    "netCDF 4": write_netcdf("h5netcdf"),
    "Zarr": lambda path, given: write_zarr(path, given, inside=""),
    "Zarr in a folder": write_zarr,
    "CSV": lambda path, given: frame(given).to_csv(path, index=False),
    "CSV with semicolons": lambda path, given: path.write_text(
        "# made by hand\n" + frame(given).to_csv(index=False, sep=";")
    ),
    "Parquet": lambda path, given: frame(given).to_parquet(path),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize(
    "options",
    [{}, {"more": False}, {"ragged": True}, {"missing": True}],
    ids=["whole", "states alone", "ragged", "missing samples"],
)
def test_every_format_has_the_digest_of_the_npz_file(tmp_path, name, options):
    given = arrays(**options)
    save_dataset(check_arrays(given), tmp_path / "dataset.npz")
    expected = load_dataset(tmp_path / "dataset.npz")
    path = tmp_path / "upload"
    if "missing" in options and name.startswith(("CSV", "Parquet")):
        # A row without any state is no sample.
        given["mask"][2, 1, 1] = True
        expected = check_arrays(given)
    WRITERS[name](path, given)
    kind = name.removesuffix(" with semicolons").removesuffix(" in a folder")
    assert kind_of(path) == kind.replace("netCDF 4", "HDF5")
    found = load_dataset(path)
    assert found.digest == expected.digest


def test_a_folder_of_zarr_is_read_too(tmp_path):
    given = arrays()
    to_xarray(check_arrays(given)).to_zarr(tmp_path / "store", consolidated=False)
    assert load_dataset(tmp_path / "store").digest == check_arrays(given).digest


def test_labelled_variables_go_out_and_come_back():
    given = arrays(ragged=True) | {
        "conserved": np.array([[1.0, 2.0]]),
        "conserved_names": np.array(["mass"]),
    }
    given["states"] = np.abs(given["states"])
    given["positive"] = np.array(True)
    dataset = check_arrays(given)
    assert from_xarray(to_xarray(dataset)).digest == dataset.digest


def test_fields_and_labelled_axes_become_states_in_order():
    values = np.random.default_rng(0).normal(size=(3, 4, 2, 5))
    content = xr.Dataset(
        {
            "u": (("x", "time", "trajectory"), values[..., 0, :].T),
            "y": (("trajectory", "time", "species"), values[..., :2, 0]),
        },
        {"time": np.arange(4.0), "species": ["a", "b"], "x": np.linspace(0, 1, 5)},
    )
    dataset = from_xarray(content)
    assert dataset.names == ("u0", "u1", "u2", "u3", "u4", "a", "b")
    np.testing.assert_array_equal(dataset.states[..., :5], values[..., 0, :])
    np.testing.assert_array_equal(dataset.states[..., 5:], values[..., :2, 0])


def test_zarr_without_an_order_has_that_of_its_names(tmp_path):
    shape = (("trajectory", "time"), np.ones((2, 3)))
    content = xr.Dataset(
        dict.fromkeys(("y10", "y2", "a"), shape), {"time": np.arange(3.0)}
    )
    content.to_zarr(tmp_path / "store", consolidated=False)
    assert load_dataset(tmp_path / "store").names == ("a", "y2", "y10")
    content.to_netcdf(tmp_path / "ordered.nc", engine="h5netcdf")
    assert load_dataset(tmp_path / "ordered.nc").names == ("y10", "y2", "a")


def test_hdf5_with_other_names_is_told_what_it_has(tmp_path):
    path = tmp_path / "simulation.h5"
    with h5py.File(path, "w") as file:
        file["runs/u"], file["t"] = np.ones((2, 3, 1)), np.arange(3.0)
    with pytest.raises(InvalidInput) as error:
        load_dataset(path)
    assert "runs/u (2, 3, 1)" in error.value.found
    assert "t (3,)" in error.value.found


def test_shared_times_of_ragged_data_have_the_digest_of_a_table(tmp_path):
    given = {
        "states": np.arange(10.0).reshape(2, 5, 1),
        "times": np.arange(5.0),
        "lengths": np.array([5, 3]),
    }
    np.savez(tmp_path / "a.npz", **given)
    rows = ["trajectory,time,x1"]
    rows += [
        f"{row},{k},{5 * row + k}"
        for row, count in enumerate(given["lengths"])
        for k in range(count)
    ]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    ours, theirs = (load_dataset(tmp_path / f"a.{end}") for end in ("npz", "csv"))
    assert ours.digest == theirs.digest
    np.testing.assert_array_equal(theirs.times[1], np.arange(5.0))


def test_coordinates_of_trajectories_are_parameters(tmp_path):
    k = np.array([0.1, 0.2, 0.3])
    times = np.arange(4.0)
    own = times + k[:, None]
    content = xr.Dataset(
        {"y": (("trajectory", "time"), np.exp(-k[:, None] * times))},
        coords={
            "time": times,
            "k": ("trajectory", k),
            # What is left of a selection, and labels, say nothing.
            "level": 3.0,
            "label": ("trajectory", ["a", "b", "c"]),
            "times": (("trajectory", "time"), own),
        },
    )
    seconds = content.assign_coords(times=("time", times))
    assert from_xarray(seconds.drop_vars("k")).parameter_names == ()
    found = from_xarray(content)
    assert found.parameter_names == ("k",)
    np.testing.assert_array_equal(found.parameters[:, 0], k)
    np.testing.assert_array_equal(found.times, own)
    content.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    assert load_dataset(tmp_path / "a.nc").digest == found.digest


@pytest.mark.parametrize(
    ("said", "is_positive"),
    [
        *((yes, True) for yes in (1, True, np.int8(1), "1", "true", "Yes", ["true"])),
        *(
            (no, False)
            for no in (0, False, np.int8(0), "0", "false", "FALSE", "no", "", ["no"])
        ),
    ],
)
def test_the_attribute_positive_is_what_it_says(said, is_positive):
    content = to_xarray(check_arrays(arrays()))
    content["y1"], content["y2"] = abs(content["y1"]), abs(content["y2"])
    content.attrs["positive"] = said
    assert from_xarray(content).positive is is_positive


@pytest.mark.parametrize("said", ["maybe", ["maybe"], ["yes", "no"]])
def test_an_attribute_that_says_neither_yes_nor_no_is_refused(said):
    content = to_xarray(check_arrays(arrays()))
    content.attrs["positive"] = said
    with pytest.raises(InvalidInput, match=r"positive: found .*; expected 1 or 0"):
        from_xarray(content)


def test_labels_of_xarray_need_no_zarr():
    hidden = "import sys; sys.modules['zarr'] = None; "
    program = hidden + "from spnode_core import as_xarray, from_xarray, to_xarray"
    subprocess.run([sys.executable, "-c", program], check=True)
