"""Jacobians ``d x / d input`` of rollouts, as directions of a jvp or a vjp.

::

    fewer inputs than outputs    k = inputs of a row     forward: columns
    fewer outputs than inputs    k = outputs of a row    reverse: rows of the matrix

Many directions are cut into pieces, each of which is a row of its own for the engine:
they are batched, take turns and are refused as rows are, and few shapes are compiled.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.rollouts.directions import all_states
from services.rollouts.request import Arrays
from spnode_core.errors import InvalidInput

# Directions of one row at a time: a tile of 32 rows then moves as many trajectories as
# the largest tile has, and what it stores stays small for long ones.
_PIECE = 16


@dataclass(frozen=True)
class Columns:
    """How a Jacobian is computed.

    Args:
        shapes: Shape of each input of one row, by name, in the order of the columns.
        times: Number of output times.
        states: Which states the answer has, None for all.
        width: How many states the model has.
    """

    shapes: dict[str, tuple[int, ...]]
    times: int
    states: Sequence[int] | None
    width: int

    @property
    def inputs(self) -> int:
        """Numbers that a row is differentiated by."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def kept(self) -> int:
        """States of the answer."""
        return self.width if self.states is None else len(self.states)

    @property
    def outputs(self) -> int:
        """Numbers of a row that are differentiated."""
        return self.times * self.kept

    @property
    def is_reverse(self) -> bool:
        """Whether gradients of the outputs are fewer than directions of the inputs."""
        return self.outputs < self.inputs

    @property
    def directions(self) -> int:
        """How many directions a row needs."""
        return min(self.inputs, self.outputs)

    @property
    def pieces(self) -> int:
        """How often a row is computed, each time with some of its directions."""
        return -(-self.directions // _PIECE)

    def check(self, count: int, most: int) -> None:
        """Refuse what exceeds an answer.

        Raises:
            InvalidInput: The Jacobian of so many rows has too many numbers.
        """
        values = count * self.outputs * self.inputs
        computed = count * self.directions * self.times * self.width
        if max(values, computed) > most:
            raise InvalidInput(
                "inputs",
                found=f"a Jacobian of {values} numbers (rows x times x states x "
                f"inputs), {computed} to be computed",
                expected=f"at most {most}; ask for fewer rows, times, states or "
                "inputs, or for products by jvp or vjp",
            )

    def rows(self, rows: Arrays, count: int) -> Arrays:
        """The rows, once for each piece, with its directions: an identity, cut."""
        repeated = {
            name: np.repeat(array, self.pieces, axis=0) for name, array in rows.items()
        }
        each = -(-self.directions // self.pieces)
        size = self.outputs if self.is_reverse else self.inputs
        identity = np.eye(each * self.pieces, size).reshape(self.pieces, each, size)
        if self.is_reverse:
            ways = identity.reshape(self.pieces, each, self.times, self.kept)
            ways = all_states(ways, self.states, self.width)
            return repeated | {"cotangents": _tiled(ways, count)}
        start = 0
        for name, shape in self.shapes.items():
            stop = start + math.prod(shape)
            ways = identity[..., start:stop].reshape(self.pieces, each, *shape)
            repeated[f"tangents.{name}"] = _tiled(ways, count)
            start = stop
        return repeated

    def assembled(self, results: Arrays) -> Arrays:
        """``x``, and ``jacobian.x0 (row, time, state, *input)`` and so on."""
        found: Arrays = {"x": results["x"][:: self.pieces]}
        if self.is_reverse:
            for name, shape in self.shapes.items():
                found[f"jacobian.{name}"] = self._joined(
                    results[f"gradients.{name}"]
                ).reshape(-1, self.times, self.kept, *shape)
            return found
        columns = np.moveaxis(self._joined(results["tangents"]), 1, -1)
        if self.states is not None:
            columns = columns[:, :, self.states]
        start = 0
        for name, shape in self.shapes.items():
            stop = start + math.prod(shape)
            part = columns[..., start:stop]
            found[f"jacobian.{name}"] = part.reshape(*part.shape[:-1], *shape)
            start = stop
        return found

    def _joined(self, array: np.ndarray) -> np.ndarray:
        """``(row and piece, each, ...)`` as ``(row, direction, ...)``."""
        each = array.reshape(-1, self.pieces * array.shape[1], *array.shape[2:])
        return each[:, : self.directions]


def _tiled(ways: np.ndarray, count: int) -> np.ndarray:
    """The pieces' directions for every row: ``(row and piece, each, ...)``."""
    many = np.broadcast_to(ways, (count, *ways.shape))
    return np.ascontiguousarray(many).reshape(-1, *ways.shape[1:])
