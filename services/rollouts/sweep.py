"""Parameter sweeps: a few axes of values that stand for the rows of a whole grid.

::

    product   every combination of the axes' values; the last axis varies fastest
    zip       the axes go side by side, so all have the same length

Rows are made from their numbers, a piece at a time, so a grid takes no memory.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from services.rollouts.request import Arrays, Request
from services.rollouts.wire import SpacedValues, Sweep
from spnode_core.errors import InvalidInput
from spnode_core.spec import Signature

_NOUNS = {"parameters": "parameters", "x0": "states"}


@dataclass(frozen=True)
class Axis:
    """One quantity that is swept.

    Args:
        field: ``parameters`` or ``x0``.
        name: Name of the parameter or state.
        column: Its place in the vector.
        values: What it goes through.
    """

    field: str
    name: str
    column: int
    values: np.ndarray


@dataclass(frozen=True)
class Grid:
    """The rows that a sweep stands for.

    Args:
        axes: What is swept, in order.
        shape: Length of each axis of the grid: one for all axes that go side by side.
        base: ``x0`` and ``parameters`` that the swept values are put into.
    """

    axes: tuple[Axis, ...]
    shape: tuple[int, ...]
    base: Arrays

    @property
    def count(self) -> int:
        """Number of rows."""
        return math.prod(self.shape)

    def rows(self, start: int, stop: int) -> Arrays:
        """``x0`` and ``parameters`` of the rows from ``start`` up to ``stop``."""
        places = np.unravel_index(np.arange(start, stop), self.shape)
        if len(places) < len(self.axes):
            places = places * len(self.axes)
        found = {
            name: np.repeat(vector[None], stop - start, axis=0)
            for name, vector in self.base.items()
        }
        for axis, place in zip(self.axes, places, strict=True):
            found[axis.field][:, axis.column] = axis.values[place]
        return found

    def describe(self) -> dict[str, Any]:
        """The axes for an answer, so that its rows can be shaped into the grid."""
        return {
            "shape": list(self.shape),
            "axes": [
                {"field": axis.field, "name": axis.name, "values": axis.values.tolist()}
                for axis in self.axes
            ],
        }


def unrolled(
    request: Request, sweep: Sweep, signature: Signature, most: int
) -> tuple[Request, Grid]:
    """A request with the rows of its sweep, and the grid.

    Raises:
        InvalidInput: As ``grid_of``.
    """
    grid = grid_of(sweep, request.arrays, signature, most)
    rows = grid.rows(0, grid.count)
    return request._replace(arrays=request.arrays | rows), grid


def grid_of(sweep: Sweep, arrays: Arrays, signature: Signature, most: int) -> Grid:
    """The grid of a sweep, its values put into the vectors that a request gives.

    Args:
        sweep: What is to be swept.
        arrays: Those of the request: ``x0`` and ``parameters`` are one vector each, or
            missing where every one of their values is swept.
        signature: Names the states and parameters.
        most: How many rows there may be.

    Raises:
        InvalidInput: A name that the version does not have, values that are none, too
            many rows, or axes of different lengths that are to go side by side.
    """
    named = {"parameters": signature.parameters, "x0": signature.states}
    axes = []
    for field in ("parameters", "x0"):
        for name, values in getattr(sweep, field).items():
            if name not in named[field]:
                raise InvalidInput(
                    _place(field, name),
                    found=repr(name),
                    expected=f"one of {', '.join(named[field])}"
                    if named[field]
                    else "none: this version takes no parameters",
                )
            column = named[field].index(name)
            given = _values(values, _place(field, name), most)
            axes.append(Axis(field, name, column, given))
    if not axes:
        raise InvalidInput(
            "sweep",
            found="nothing to go through",
            expected="values of at least one parameter or initial state",
        )
    shape = _shape(axes, sweep.combine)
    if math.prod(shape) > most:
        raise InvalidInput(
            "sweep",
            found=f"{' x '.join(map(str, shape))} = {math.prod(shape)} rows",
            expected=f"at most {most}",
        )
    base = {
        field: _base(field, names, arrays, axes)
        for field, names in named.items()
        if names
    }
    return Grid(tuple(axes), shape, base)


def _values(values: list[float] | SpacedValues, place: str, most: int) -> np.ndarray:
    count = len(values) if isinstance(values, list) else values.count
    if not 1 <= count <= most:
        raise InvalidInput(
            place, found=f"{count} values", expected=f"at least 1 and at most {most}"
        )
    if isinstance(values, list):
        return np.array(values, np.float64)
    if values.spacing == "linear":
        return np.linspace(values.start, values.stop, count)
    for name in ("start", "stop"):
        if getattr(values, name) <= 0:
            raise InvalidInput(
                f"{place}/{name}",
                found=repr(getattr(values, name)),
                expected="above 0 where spacing is 'log'",
            )
    return np.geomspace(values.start, values.stop, count)


def _shape(axes: list[Axis], combine: str) -> tuple[int, ...]:
    lengths = [len(axis.values) for axis in axes]
    if combine == "product":
        return tuple(lengths)
    for axis, length in zip(axes, lengths, strict=True):
        if length != lengths[0]:
            raise InvalidInput(
                _place(axis.field, axis.name),
                found=f"{length} values",
                expected=f"{lengths[0]}, as {axes[0].name} has, to go side by side",
            )
    return (lengths[0],)


def _base(
    field: str, names: tuple[str, ...], arrays: Arrays, axes: list[Axis]
) -> np.ndarray:
    """The vector that swept values are put into."""
    given = arrays.get(field)
    swept = {axis.name for axis in axes if axis.field == field}
    missing = [name for name in names if name not in swept]
    noun = _NOUNS[field]
    if given is None:
        if missing:
            raise InvalidInput(
                field,
                found="nothing",
                expected=f"{len(names)} {noun}, since the sweep leaves "
                f"{', '.join(missing[:5])} open",
            )
        return np.zeros(len(names))
    if given.shape != (len(names),):
        raise InvalidInput(
            field,
            found=f"an array of shape {given.shape}",
            expected=f"{len(names)} {noun} in the order {', '.join(names)}: one vector "
            "beside a sweep",
        )
    return np.array(given, np.float64)


def _place(field: str, name: str) -> str:
    """A JSON pointer."""
    return f"/sweep/{field}/{name.replace('~', '~0').replace('/', '~1')}"
