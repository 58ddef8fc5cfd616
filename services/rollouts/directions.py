"""Directions and cotangents: their number, their shapes, and their form by row.

::

    tangents    ([k,] [row,] ...)              -> (row, k, ...)
    cotangents  ([k,] [row,] [time,] state)    -> (row, k, time, state)
"""

from collections.abc import Sequence

import numpy as np

from services.rollouts.request import DIFFERENTIABLE, RANK, Arrays
from spnode_core.errors import InvalidInput


def repeated(array: np.ndarray, rank: int, count: int) -> np.ndarray:
    """An array with an axis of rows: repeated where one is for all of them."""
    if array.ndim == rank and count == 1:
        return array[None]
    if array.ndim == rank:
        return np.ascontiguousarray(np.broadcast_to(array, (count, *array.shape)))
    return array


def count_tangents(arrays: Arrays) -> int | None:
    """Length of the leading axis of the tangents, None without one.

    Raises:
        InvalidInput: There are no tangents.
    """
    for name in DIFFERENTIABLE:
        tangent = arrays.get(f"tangents.{name}")
        if tangent is not None and name in arrays:
            return len(tangent) if tangent.ndim > arrays[name].ndim else None
    if any(name.startswith("tangents.") for name in arrays):
        return None
    raise InvalidInput(
        "tangents",
        found="nothing",
        expected=f"a direction of at least one of {', '.join(DIFFERENTIABLE)}",
    )


def check_count(field: str, k: int, values: int, most: int) -> None:
    """Refuse no directions, and more than fit into an answer.

    Raises:
        InvalidInput: There are none, or too many.
    """
    if k == 0 or k * values > most:
        raise InvalidInput(
            field,
            found=f"{k} of them: {k * values} numbers (k x rows x times x states)",
            expected=f"at least one, and at most {most} numbers",
        )


def tangents_by_row(arrays: Arrays, leading: tuple[int, ...], count: int) -> Arrays:
    """By row, then by direction; inputs without tangents do not move and have none.

    Args:
        arrays: The request's, tangents being ``tangents.x0`` and so on.
        leading: The axis of many directions, empty for one alone.
        count: Number of rows.

    Raises:
        InvalidInput: A tangent has not the shape of its input.
    """
    found: Arrays = {}
    for name in DIFFERENTIABLE:
        tangent = arrays.get(f"tangents.{name}")
        if tangent is None:
            continue
        if name not in arrays or tangent.shape != (*leading, *arrays[name].shape):
            shape = (*leading, *arrays[name].shape) if name in arrays else "nothing"
            raise InvalidInput(
                f"tangents.{name}",
                found=f"an array of shape {tangent.shape}",
                expected=f"the shape of {name}, {shape}",
            )
        each = tangent if leading else tangent[None]
        rows = [repeated(direction, RANK[name], count) for direction in each]
        found[f"tangents.{name}"] = np.stack(rows, axis=1)
    return found


def cotangents_by_row(
    given: np.ndarray,
    leading: tuple[int, ...],
    shape: tuple[int, ...],
    count: int,
    states: Sequence[int] | None,
    width: int,
) -> np.ndarray:
    """Those of the whole ``x``: zero for states that the answer leaves out.

    Args:
        given: As they were sent.
        leading: The axis of many cotangents, empty for one alone.
        shape: The shape of the answer's ``x``.
        count: Number of rows.
        states: Which states the answer has, None for all.
        width: How many states there are.

    Raises:
        InvalidInput: They have not the shape of ``x``.
    """
    if given.shape != (*leading, *shape):
        raise InvalidInput(
            "cotangents",
            found=f"an array of shape {given.shape}",
            expected=f"the shape of the answer's x, {(*leading, *shape)}",
        )
    k = leading[0] if leading else 1
    full = given.reshape(k, count, -1, shape[-1]).swapaxes(0, 1)
    return np.ascontiguousarray(all_states(full, states, width))


def all_states(
    array: np.ndarray, states: Sequence[int] | None, width: int
) -> np.ndarray:
    """An array over some states as one over all, zero elsewhere; repeated ones add."""
    if states is None:
        return array
    found = np.zeros((*array.shape[:-1], width))
    for place, state in enumerate(states):
        found[..., state] += array[..., place]
    return found
