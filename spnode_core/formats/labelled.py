"""xarray, and through it netCDF and Zarr: variables with names for their axes.

::

    y1 (trajectory, time)          a state; attribute units
    u  (trajectory, time, x)       a field: states u0, u1, ...
    k1 (trajectory)                a parameter
    v  (trajectory, time)          a control, where its attribute role is "control"
    time (time)                    times that all share, or
    times (trajectory, time)       each trajectory's own

Axes come in any order. States have the order of the variables; Zarr keeps none, so
there the attribute ``order`` (a JSON list of names) has it, or else the names do. NaN
is a missing sample.
"""

import json
import re
import zipfile
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from spnode_core.errors import InvalidInput
from spnode_core.formats.reading import check_size

TRAJECTORY, TIME = "trajectory", "time"
_YES, _NO = {"1", "true", "yes"}, {"", "0", "false", "no"}
_SO = "1 or 0, true or false, yes or no"
_SHAPED = "variables with axes named `trajectory` and `time`"


def read(path: Path, kind: str, limit_bytes: int) -> Mapping[str, Any]:
    """The arrays of a dataset in a netCDF or Zarr file.

    Raises:
        InvalidInput: The file is damaged, or its variables are not those of a dataset.
    """
    try:
        with _opened(path, kind) as content:
            check_size(content.nbytes, limit_bytes)
            if kind == "Zarr":
                # It keeps no order, so names have one: y2 before y10.
                content = content[sorted(map(str, content.data_vars), key=_natural)]
            return arrays_of(content.load())
    except InvalidInput:
        raise
    except Exception as error:  # readers raise whatever their parts raise
        raise InvalidInput(
            "file", found=f"damaged {kind}: {error}", expected="a whole file"
        ) from error


def _opened(path: Path, kind: str) -> xr.Dataset:
    plain: dict[str, Any] = {"decode_times": False, "cache": False}
    if kind != "Zarr":
        engine = "scipy" if kind == "netCDF 3" else "h5netcdf"
        return xr.open_dataset(path, engine=engine, **plain)
    options: dict[str, Any] = {"consolidated": False, "chunks": None}
    options["decode_times"] = False
    if path.is_dir():
        return xr.open_zarr(path, **options)
    # Here, so that xarray alone is enough for `as_xarray`.
    from zarr.storage import ZipStore

    group = _checked_archive(path)
    return xr.open_zarr(ZipStore(path, mode="r"), group=group, **options)


def _checked_archive(path: Path) -> str:
    """The top group of a zipped store, refused where an object may be pickled."""
    tops = []
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            folder, _, name = member.filename.rpartition("/")
            if name in ("zarr.json", ".zgroup"):
                tops.append(folder)
            if name not in ("zarr.json", ".zarray"):
                continue
            if member.file_size > 2**20:
                raise InvalidInput(
                    member.filename,
                    found=f"{member.file_size} bytes",
                    expected="a description of an array",
                )
            # Written anew, since escapes can spell a word in another way.
            about = json.dumps(json.loads(archive.read(member)))
            if "pickle" in about or '"|O"' in about:
                raise InvalidInput(
                    member.filename,
                    found="an array of objects",
                    expected="numbers or text; nothing is unpickled",
                )
    return min(tops, key=len)


def arrays_of(content: xr.Dataset) -> dict[str, Any]:
    """The arrays of a dataset by name, from labelled variables.

    Raises:
        InvalidInput: A variable is not one of a dataset.
    """
    if TRAJECTORY not in content.sizes or TIME not in content.sizes:
        axes = ", ".join(map(str, content.sizes)) or "none"
        raise InvalidInput("file", found=f"axes {axes}", expected=_SHAPED)
    content = content.reset_coords(
        [name for name in content.coords if _is_variable(content, name)]
    )
    states, controls, parameters = _Group(content), _Group(content), _Group(content)
    found: dict[str, Any] = {}
    for name in _order(content):
        variable = content[name]
        axes = set(variable.dims)
        if name == "times":
            found["times"] = variable.transpose(TRAJECTORY, TIME).to_numpy()
            found["time_unit"] = _unit(variable)
        elif name == "lengths":
            found["lengths"] = variable.to_numpy()
        elif {TRAJECTORY, TIME} <= axes:
            is_control = variable.attrs.get("role") == "control"
            (controls if is_control else states).add(name, variable)
        elif TRAJECTORY in axes:
            parameters.add(name, variable)
        elif variable.dtype.kind in "fiu":
            raise InvalidInput(
                str(name),
                found=f"axes {', '.join(map(str, variable.dims)) or 'none'}",
                expected=_SHAPED,
            )
    if not states.names:
        raise InvalidInput("file", found="no states", expected=_SHAPED)
    if "times" not in found:
        if TIME not in content.coords:
            raise InvalidInput(
                TIME, found="no coordinate", expected="the times of the samples"
            )
        found["times"] = content[TIME].to_numpy()
        found["time_unit"] = _unit(content[TIME])
    values = states.values()
    found |= {"states": values, "names": np.array(states.names)}
    if any(states.units):
        found["units"] = np.array(states.units)
    if np.isnan(values).any():
        found["mask"] = ~np.isnan(values)
    if parameters.names:
        found["parameters"] = parameters.values()
        found["parameter_names"] = np.array(parameters.names)
    if controls.names:
        found["controls"] = controls.values()
        found["control_names"] = np.array(controls.names)
    return found | _said(content, states.names)


def _is_variable(content: xr.Dataset, name: Hashable) -> bool:
    """Whether a coordinate is one by habit: a number of each trajectory, or times."""
    found = content[name]
    if name in content.xindexes or found.dtype.kind not in "fiu":
        return False
    axes = set(found.dims)
    return axes == ({TRAJECTORY, TIME} if name == "times" else {TRAJECTORY})


def _order(content: xr.Dataset) -> list[Hashable]:
    """Variables as the attribute ``order`` has them, then the others."""
    try:
        asked = json.loads(content.attrs.get("order", "[]"))
    except (TypeError, ValueError):
        asked = []
    named = asked if isinstance(asked, list) else []
    first = [
        name
        for name in dict.fromkeys(each for each in named if isinstance(each, str))
        if name in content.data_vars
    ]
    return [*first, *(name for name in content.data_vars if name not in first)]


def _natural(name: str) -> list[tuple[bool, int, str]]:
    parts = re.split(r"(\d+)", name)
    return [
        (part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts
    ]


def _said(content: xr.Dataset, names: list[str]) -> dict[str, Any]:
    """What the attributes of the whole say."""
    found: dict[str, Any] = {}
    if _is_so("positive", content.attrs.get("positive", False)):
        found["positive"] = np.array(True)
    if "conserved" in content.attrs:
        try:
            sums = json.loads(content.attrs["conserved"])
            found["conserved"] = np.array(
                [[float(sum_.get(name, 0)) for name in names] for sum_ in sums.values()]
            )
            found["conserved_names"] = np.array(list(sums))
        except (AttributeError, TypeError, ValueError) as error:
            raise InvalidInput(
                "conserved",
                found=f"{str(content.attrs['conserved'])[:80]!r}",
                expected='JSON such as {"mass": {"y1": 1, "y2": 1}}',
            ) from error
    return found


def _is_so(name: str, value: Any) -> bool:
    """Whether an attribute says yes: a number, or a text, which some tools write."""
    # Zarr has lists, and HDF5 arrays of one text.
    value = np.ravel(value)[0] if np.size(value) == 1 else value
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    if not isinstance(text, str):
        if np.asarray(value).dtype.kind not in "biuf":
            raise InvalidInput(name, found=f"{str(value)[:80]!r}", expected=_SO)
        return bool(np.any(value))
    told = text.strip().lower()
    if told not in _YES | _NO:
        raise InvalidInput(name, found=f"{text[:80]!r}", expected=_SO)
    return told in _YES


class _Group:
    """Variables of one role, side by side on the last axis."""

    def __init__(self, content: xr.Dataset) -> None:
        self._content = content
        self._parts: list[np.ndarray] = []
        self.names: list[str] = []
        self.units: list[str] = []

    def add(self, name: Hashable, variable: xr.DataArray) -> None:
        """Add a variable, a column for each place on its other axes."""
        if variable.dtype.kind not in "fiu":
            raise InvalidInput(
                str(name), found=f"dtype {variable.dtype}", expected="real numbers"
            )
        first = [axis for axis in (TRAJECTORY, TIME) if axis in variable.dims]
        others = [axis for axis in variable.dims if axis not in first]
        ordered = variable.transpose(*first, *others)
        shape = ordered.shape[: len(first)]
        array = ordered.to_numpy().astype(np.float64).reshape(*shape, -1)
        names = self._named(name, variable, others)
        self._parts.append(array)
        self.names += names
        self.units += [_unit(variable)] * len(names)

    def values(self) -> np.ndarray:
        """All of them."""
        return np.concatenate(self._parts, axis=-1)

    def _named(
        self, name: Hashable, variable: xr.DataArray, others: list[Hashable]
    ) -> list[str]:
        if not others:
            return [str(name)]
        if len(others) == 1 and others[0] in variable.coords:
            labels = variable[others[0]].to_numpy()
            if labels.dtype.kind in "UO":
                return [str(label) for label in labels]
        sizes = [variable.sizes[axis] for axis in others]
        places = np.ndindex(*sizes)
        return [f"{name}{'_'.join(map(str, place))}" for place in places]


def _unit(variable: xr.DataArray) -> str:
    return str(variable.attrs.get("units", ""))
