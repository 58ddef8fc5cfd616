"""Rows as an xarray array whose axes have names and coordinates; needs xarray."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spnode_client.records import ModelVersion, Record, Rollout, in_grid


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


def labelled_rollout(
    found: Rollout, version: ModelVersion, options: Mapping[str, Any]
) -> Any:
    """An ``xarray.Dataset`` of an answer: ``x``, and what was asked for beside it.

    Args:
        found: The answer.
        version: Of the model, whose states have names and units.
        options: Those of the request, which may have chosen states and times.

    Raises:
        ImportError: xarray is not installed.
    """
    xarray = importlib.import_module("xarray")
    outputs, signature = options.get("outputs") or {}, version.record["signature"]
    states = outputs.get("states") or signature["states"]
    is_row = found.x.ndim == (1 if outputs.get("times") == "final" else 2)
    variables = {}
    for name in ("x", "lower", "upper", "spread"):
        array = getattr(found, name)
        if array is not None:
            rows = array[None] if is_row else array
            made = labelled(rows, found.times, states, found.sweep)
            variables[name] = made[0] if is_row else made
    about = {"model": found.model, "version": found.version, "digest": found.digest}
    made = xarray.Dataset(variables, attrs=about)
    if found.coverage is not None:
        made.attrs["coverage"] = found.coverage
    if units := signature.get("units"):
        by_state = dict(zip(signature["states"], units, strict=True))
        made = made.assign_coords(unit=("state", [by_state[name] for name in states]))
    if "time" in made.coords and signature.get("time_unit"):
        made["time"].attrs["units"] = signature["time_unit"]
    return made
