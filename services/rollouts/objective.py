"""Objectives of a rollout as observations and weights: ``sum(w * (x - y)**2)``.

::

    misfit      y: observations, null where missing      w: weights, 0 where missing
    quadratic   y: target, 0 by default                  w: weights, others at the end

The sum goes over output times and states. Both arrays get the shape
``(row, time, state)`` of all the model's states; those that the answer leaves out have
weight 0.
"""

from collections.abc import Sequence

import numpy as np

from services.rollouts.directions import all_states
from services.rollouts.request import Arrays, Request
from spnode_core.errors import InvalidInput

_OF_KIND = {
    "misfit": ("observations", "weights"),
    "quadratic": ("target", "weights", "final_weights"),
}


def objective_rows(
    request: Request,
    shape: tuple[int, ...],
    count: int,
    states: Sequence[int] | None,
    width: int,
) -> Arrays:
    """Observations and weights of every row.

    Args:
        request: Has the objective's kind and arrays.
        shape: The shape of the answer's ``x`` of one row: ``([time,] state)``.
        count: Number of rows.
        states: Which states the answer has, None for all.
        width: How many states there are.

    Raises:
        InvalidInput: An array is missing, unknown to the kind, of a wrong shape, or a
            weight is negative.
    """
    kind = request.objective or "misfit"
    given = {
        name.removeprefix("objective."): array
        for name, array in request.arrays.items()
        if name.startswith("objective.")
    }
    for name in given:
        if name not in _OF_KIND[kind]:
            raise InvalidInput(
                f"objective.{name}",
                found="an array",
                expected=f"nothing: a {kind} has {', '.join(_OF_KIND[kind])}",
            )
    for name in ("weights", "final_weights"):
        _check_weights(name, given.get(name))
    make = _misfit if kind == "misfit" else _quadratic
    y, w = make(given, shape, count)
    full = (count, -1, shape[-1])
    if states is not None and len(set(states)) < len(states):
        raise InvalidInput(
            "outputs.states", found="a state twice", expected="each once"
        )
    return {
        "observations": all_states(y.reshape(full), states, width),
        "weights": all_states(w.reshape(full), states, width),
    }


def _misfit(
    given: Arrays, shape: tuple[int, ...], count: int
) -> tuple[np.ndarray, np.ndarray]:
    if "observations" not in given:
        raise InvalidInput(
            "objective.observations", found="nothing", expected="an array"
        )
    y = _by_row("observations", given["observations"], shape, count, least=len(shape))
    w = _by_row("weights", given.get("weights", np.ones(shape[-1])), shape, count)
    missing = np.isnan(y)
    return np.where(missing, 0.0, y), np.where(missing, 0.0, w)


def _quadratic(
    given: Arrays, shape: tuple[int, ...], count: int
) -> tuple[np.ndarray, np.ndarray]:
    y = _by_row("target", given.get("target", np.zeros(shape[-1])), shape, count)
    final = given.get("final_weights")
    usual = np.full(shape[-1], 1.0 if final is None else 0.0)
    w = _by_row("weights", given.get("weights", usual), shape, count).copy()
    if final is not None:
        last = _by_row("final_weights", final, shape[-1:], count)
        if len(shape) == 1:
            w = last
        else:
            w[:, -1] = last
    return y, w


def _by_row(
    name: str, array: np.ndarray, shape: tuple[int, ...], count: int, *, least: int = 1
) -> np.ndarray:
    """An array of the end of ``(row, [time,] state)`` as one of all of that."""
    full = (count, *shape)
    allowed = [full[start:] for start in range(len(full) - least + 1)]
    if array.shape not in allowed:
        raise InvalidInput(
            f"objective.{name}",
            found=f"an array of shape {array.shape}",
            expected="one of shape " + " or ".join(map(str, allowed)),
        )
    return np.broadcast_to(array, full)


def _check_weights(name: str, weights: np.ndarray | None) -> None:
    if weights is None:
        return
    below = np.argwhere(weights < 0)
    if below.size:
        place = tuple(below[0].tolist())
        raise InvalidInput(
            f"objective.{name}[{', '.join(map(str, place))}]",
            found=repr(float(weights[place])),
            expected="a weight of at least 0",
        )
