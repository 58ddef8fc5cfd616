"""Rows as an xarray array whose axes have names and coordinates; needs xarray."""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from spnode_client.records import Record, in_grid


def labelled(
    x: np.ndarray,
    times: np.ndarray,
    states: Sequence[str] | None,
    sweep: Record | None,
) -> Any:
    """An ``xarray.DataArray`` of rows, or of the grid that they stand for.

    Args:
        x: ``(row, time, state)``, or ``(row, state)`` of the final time.
        times: The times of the output.
        states: Names of the states, where they are known.
        sweep: The grid of a sweep, its axes named as what was swept.

    Raises:
        ImportError: xarray is not installed.
    """
    xarray = importlib.import_module("xarray")
    dims, coords = ["row"], {}
    if sweep is not None:
        names = [axis["name"] for axis in sweep["axes"]]
        side_by_side = len(sweep["shape"]) < len(names)
        dims = ["row"] if side_by_side else names
        for axis in sweep["axes"]:
            dim = "row" if side_by_side else axis["name"]
            coords[axis["name"]] = (dim, axis["values"])
    if x.ndim == 3:
        dims = [*dims, "time"]
        coords["time"] = ("time", np.asarray(times))
    if states is not None:
        coords["state"] = ("state", list(states))
    values = x if sweep is None else in_grid(x, sweep)
    return xarray.DataArray(values, dims=[*dims, "state"], coords=coords)
