"""Datasets as labelled variables of xarray, in and out; rollouts as such."""

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from spnode_core.dataset import Dataset, check_arrays
from spnode_core.errors import InvalidInput
from spnode_core.formats.labelled import TIME, TRAJECTORY, arrays_of

if TYPE_CHECKING:
    from spnode_core.surrogate import Surrogate


def from_xarray(content: xr.Dataset) -> Dataset:
    """Build a dataset from labelled variables, or say what is wrong with them.

    Args:
        content: Variables with axes ``trajectory`` and ``time``: states, or controls
            where their attribute ``role`` says so; with ``trajectory`` alone:
            parameters. Other axes are counted through: ``u`` becomes ``u0, u1, ...``,
            or takes the labels of a coordinate of texts.

    Raises:
        InvalidInput: A variable or a number in it cannot be used, and why.
    """
    return check_arrays(arrays_of(content))


def to_xarray(dataset: Dataset) -> xr.Dataset:
    """Labelled variables that ``from_xarray`` takes back to the same digest."""
    axes = (TRAJECTORY, TIME)
    units = dataset.units or ("",) * len(dataset.names)
    variables: dict[str, Any] = {}
    for index, (name, unit) in enumerate(zip(dataset.names, units, strict=True)):
        attributes = {"units": unit} if unit else {}
        variables[name] = (axes, dataset.states[:, :, index], attributes)
    for index, name in enumerate(dataset.parameter_names):
        variables[name] = ((TRAJECTORY,), dataset.parameters[:, index])
    for index, name in enumerate(dataset.control_names):
        variables[name] = (axes, dataset.controls[:, :, index], {"role": "control"})
    time_attributes = {"units": dataset.time_unit} if dataset.time_unit else {}
    coordinates: dict[str, Any] = {}
    if (dataset.times == dataset.times[0]).all():
        coordinates[TIME] = ((TIME,), dataset.times[0], time_attributes)
    else:
        variables["times"] = (axes, dataset.times, time_attributes)
    attributes: dict[str, Any] = {"order": json.dumps(list(variables))}
    if dataset.conserved:
        attributes["conserved"] = json.dumps(dataset.conserved)
    if dataset.positive:
        attributes["positive"] = 1
    return xr.Dataset(variables, coordinates, attributes)


def as_xarray(surrogate: "Surrogate", x0: Any, times: Any, **inputs: Any) -> xr.Dataset:
    """A rollout whose axes have names, as ``spnode_client`` labels those of a service.

    Args:
        surrogate: What is rolled out.
        x0: ``(state,)`` or ``(row, state)``.
        times: The same for all rows, ``(time,)``.
        **inputs: ``parameters``, ``controls``, ``control_times``, as ``rollout`` takes
            them.

    Returns:
        ``x`` with the axes ``row`` (where there are rows), ``time`` and ``state``.

    Raises:
        InvalidInput: A shape, number or time that the model does not take.
    """
    if np.ndim(times) != 1:
        found = f"an array of shape {np.shape(times)}"
        raise InvalidInput("times", found=found, expected="a list: one for all rows")
    signature = surrogate.signature
    x = np.asarray(surrogate.rollout(x0, times, **inputs))
    axes = ("row", TIME, "state")[3 - x.ndim :]
    attributes = {"units": signature.time_unit} if signature.time_unit else {}
    coordinates: dict[str, Any] = {
        TIME: (TIME, np.asarray(times, np.float64), attributes),
        "state": ("state", list(signature.states)),
    }
    if signature.units:
        coordinates["unit"] = ("state", list(signature.units))
    return xr.Dataset({"x": (axes, x)}, coordinates)
