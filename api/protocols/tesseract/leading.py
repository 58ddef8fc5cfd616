"""Leading axes: what rows an input with any number of them gives, by numpy's rules.

::

    x0          (4, 1, 3)  ─┐
    parameters     (5, 2)   ├─▶ leading (4, 5), 20 rows   x (4, 5, time, state)
    times            (50)  ─┘

A remote vmap puts an axis in front of every array, or of some, or one of length 1; each
is one request and one batch. Gradients go back to the shape that was sent, summed over
what was repeated; a Jacobian has the axes of ``x``, then those of its input, so it is 0
between rows that do not meet.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from services.rollouts.request import DIFFERENTIABLE, RANK
from spnode_core.errors import InvalidInput
from spnode_core.spec import Signature

AXES = {**RANK, "times": 1, "control_times": 1}
"""Number of an input's axes behind its leading ones."""
SHARED = ("times", "control_times")
"""Inputs that all rows share: they may have leading axes, and equal rows."""
_Shape = tuple[int, ...]


@dataclass(frozen=True)
class Leading:
    """The shapes of a request.

    Args:
        given: Shape of each input as it was sent.
        shape: The leading axes of the answer.
        core: Shape of the answer's ``x`` behind them.
    """

    given: Mapping[str, _Shape]
    shape: _Shape
    core: _Shape

    @classmethod
    def of(
        cls, given: Mapping[str, _Shape], signature: Signature, *, final: bool
    ) -> "Leading":
        """Check the shapes of inputs against a version.

        Raises:
            InvalidInput: One is missing, too much, or of another shape.
        """
        _check_names(given, signature)
        for name, shape in given.items():
            _check_shape(name, shape, signature, given.get("control_times"))
        found: _Shape = ()
        for name, shape in given.items():
            found = _broadcast(found, shape[: -AXES[name]], name)
        states = len(signature.states)
        core = (states,) if final else (given["times"][-1], states)
        return cls(given, found, core)

    @property
    def rows(self) -> int:
        """How many rows are computed."""
        return math.prod(self.shape)

    @property
    def x(self) -> _Shape:
        """Shape of the answer's ``x``."""
        return (*self.shape, *self.core)

    def by_row(self, name: str, array: np.ndarray) -> np.ndarray:
        """An input, or a direction of it, as one for all rows or one a row."""
        inner = self._inner(name)
        if self._is_shared(name):
            return array.reshape(inner)
        full = np.broadcast_to(array, (*self.shape, *inner))
        return np.ascontiguousarray(full.reshape(self.rows, *inner))

    def outputs_by_row(self, array: np.ndarray) -> np.ndarray:
        """What has the shape of ``x``, or one that repeats to it, by row."""
        full = np.broadcast_to(array, self.x)
        rows = () if self.rows == 1 else (self.rows,)
        return np.ascontiguousarray(full.reshape(*rows, *self.core))

    def gradient(self, name: str, array: np.ndarray) -> np.ndarray:
        """A gradient in the shape of its input, summed over what was repeated."""
        given = self.given[name]
        if self._is_shared(name):
            return array.reshape(given)
        own = self._own(name)
        padded = (1,) * (len(self.shape) - len(own)) + own
        axes = tuple(
            axis
            for axis, (most, has) in enumerate(zip(self.shape, padded, strict=True))
            if has < most
        )
        full = array.reshape(*self.shape, *self._inner(name))
        return full.sum(axis=axes).reshape(given)

    def jacobian(self, name: str, array: np.ndarray) -> np.ndarray:
        """The derivative of ``x`` by an input, from that of each row by its own."""
        own, inner = self._own(name), self._inner(name)
        shape = (*self.x, *own, *inner)
        count = math.prod(own)
        if count == 1:
            return array.reshape(shape)
        blocks = array.reshape(self.rows, math.prod(self.core), math.prod(inner))
        full = np.zeros((self.rows, blocks.shape[1], count, blocks.shape[2]))
        places = np.broadcast_to(np.arange(count).reshape(own), self.shape)
        full[np.arange(self.rows), :, places.reshape(-1)] = blocks
        return full.reshape(shape)

    def _own(self, name: str) -> _Shape:
        return self.given[name][: -AXES[name]]

    def _inner(self, name: str) -> _Shape:
        return self.given[name][-AXES[name] :]

    def _is_shared(self, name: str) -> bool:
        # Rows are counted by x0, so that is never one for many.
        return math.prod(self._own(name)) == 1 and (name != "x0" or self.rows == 1)


def shared_row(name: str, array: np.ndarray) -> np.ndarray:
    """What all rows share, without its leading axes.

    Raises:
        InvalidInput: Its rows differ.
    """
    rows = array.reshape(-1, array.shape[-1])
    if (rows != rows[0]).any():
        raise InvalidInput(
            f"inputs.{name}",
            found=f"an array of shape {array.shape} whose rows differ",
            expected=f"the same {name} for all rows; send others in another request",
        )
    return rows[0]


def _check_names(given: Mapping[str, _Shape], signature: Signature) -> None:
    needed = {
        "x0": signature.states,
        "times": ("time",),
        "parameters": signature.parameters,
        "controls": signature.controls,
    }
    for name, parts in needed.items():
        if parts and name not in given:
            expected = f"an array of {', '.join(parts)}" if parts else ""
            raise InvalidInput(f"inputs.{name}", found="nothing", expected=expected)
        if name in given and not parts:
            raise InvalidInput(
                f"inputs.{name}",
                found=f"an array of shape {given[name]}",
                expected=f"none: this version takes no {name}",
            )
    if "control_times" in given and "controls" not in given:
        raise InvalidInput(
            "inputs.control_times", found="times", expected="none without controls"
        )


def _check_shape(
    name: str, shape: _Shape, signature: Signature, switches: _Shape | None
) -> None:
    field = f"inputs.{name}"
    if len(shape) < AXES[name] or 0 in shape:
        axes = "one axis" if AXES[name] == 1 else f"{AXES[name]} axes"
        raise InvalidInput(
            field,
            found=f"an array of shape {shape}",
            expected=f"at least {axes}, and at least one number",
        )
    if name not in DIFFERENTIABLE:
        return
    names = {
        "x0": signature.states,
        "parameters": signature.parameters,
        "controls": signature.controls,
    }[name]
    if shape[-1] != len(names):
        raise InvalidInput(
            field,
            found=f"{shape[-1]} numbers on the last axis of shape {shape}",
            expected=f"{len(names)}, in the order {', '.join(names)}",
        )
    count = switches[-1] if switches else 1
    if name == "controls" and shape[-2] != count:
        raise InvalidInput(
            field,
            found=f"{shape[-2]} values in time, in shape {shape}",
            expected=f"{count}: one for each of control_times"
            if switches
            else "1 where control_times is not given",
        )


def _broadcast(one: _Shape, other: _Shape, name: str) -> _Shape:
    """Leading axes that two inputs repeat to.

    Raises:
        InvalidInput: They do not fit.
    """
    length = max(len(one), len(other))
    first = (1,) * (length - len(one)) + one
    second = (1,) * (length - len(other)) + other
    if any(a not in (1, b) and b != 1 for a, b in zip(first, second, strict=True)):
        raise InvalidInput(
            f"inputs.{name}",
            found=f"leading axes {other}",
            expected=f"such as repeat to those of the other inputs, {one}",
        )
    return tuple(map(max, first, second))
