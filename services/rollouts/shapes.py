"""The shapes that programs are compiled for, and how batches are padded to them.

Times are padded to buckets with ``h = 0``, which is exact, and directions with zeros,
so few shapes are compiled.
"""

import math
from typing import NamedTuple

import numpy as np

from services.rollouts.request import Arrays
from services.rollouts.work import Variant
from spnode_core.timegrid import Plan, TimeGrid

# Products with fewer than 8 rows may round differently: 2 rows at 4 times are 8.
_LEAST_OUTPUTS = 4
Rows = tuple[tuple[str, tuple[int, ...]], ...]
Program = tuple[str, tuple[bool, int, int, int], Rows]
"""Of a shape, what JAX compiles for in each tile: all but the variant."""
# Arrays by row that have an axis of times before their last.
_IN_TIME = ("cotangents", "observations", "weights")


class Shape(NamedTuple):
    """What is compiled for, beside the tile: one program for each.

    Args:
        operation: ``rollout``, ``latent``, ``jvp``, ``vjp``, ``hvp``, ``objective``.
        plan: On the grid or not, number of steps, outputs and distinct steps.
        rows: Name and trailing axes of every array with an axis of rows.
        variant: How it is computed.
    """

    operation: str
    plan: tuple[bool, int, int, int]
    rows: Rows
    variant: Variant

    @property
    def input_bytes(self) -> int:
        """Of a row's inputs and directions."""
        return 8 * sum(math.prod(axes) for _, axes in self.rows)

    @property
    def program(self) -> Program:
        """What variants share."""
        return self[:3]

    @classmethod
    def of(
        cls, operation: str, plan: Plan, by_row: Arrays, variant: Variant
    ) -> "Shape":
        """The shape of a padded batch."""
        return cls(
            operation,
            (plan.on_grid, plan.steps, plan.outputs, len(plan.distinct)),
            tuple((name, array.shape[1:]) for name, array in sorted(by_row.items())),
            variant,
        )


def bucket(count: int, own: int) -> int:
    """The padded number of steps or outputs: the model's own number, or 2^k, 3 * 2^k.

    Args:
        count: How many there are.
        own: How many the model's own grid has, which is never padded.
    """
    if count == 0:
        return 0
    power = 1 << (count - 1).bit_length()
    rounded = 3 * power // 4 if power >= 4 and count <= 3 * power // 4 else power
    return own if count <= own < rounded else rounded


def padded_plan(grid: TimeGrid, plan: Plan) -> Plan:
    """A plan with steps and outputs padded to their buckets."""
    own = len(grid.times) - 1 if grid.uniform is None else 0
    outputs = max(plan.outputs, _LEAST_OUTPUTS)
    return plan.padded(bucket(plan.steps, own), bucket(outputs, own + 1))


def padded_rows(arrays: Arrays, operation: str, outputs: int) -> Arrays:
    """The arrays by row, with zeros up to so many times and a bucket of directions."""
    found: Arrays = {}
    for name, array in arrays.items():
        if name in ("times", "control_times"):
            continue
        widths = [(0, 0)] * array.ndim
        if name in _IN_TIME:
            widths[-2] = (0, outputs - array.shape[-2])
        if _has_directions(name, operation):
            widths[1] = (0, bucket(array.shape[1], 0) - array.shape[1])
        found[name] = np.pad(array, widths) if any(map(any, widths)) else array
    return found


def trimmed(results: Arrays, arrays: Arrays, operation: str) -> Arrays:
    """The results at the times and in the directions that were asked for."""
    times = len(arrays["times"])
    counts = [
        array.shape[1]
        for name, array in arrays.items()
        if _has_directions(name, operation)
    ]
    found: Arrays = {}
    for name, array in results.items():
        if counts and name.split(".")[0] in _MANY[operation]:
            array = array[:, : counts[0]]
        if name in ("x", "spread", "z", "tangents"):
            array = array[..., :times, :]
        found[name] = array
    return found


# Results that have an axis of directions behind that of the rows.
_MANY = {"jvp": ("tangents",), "vjp": ("gradients",), "hvp": ("products",)}


def _has_directions(name: str, operation: str) -> bool:
    return name.startswith("tangents.") or (operation, name) == ("vjp", "cotangents")
