"""A rollout in the service as a function of arrays, with its derivatives.

::

    f(inputs) = x        Jv        J^T w        H(w) v, H of sum(w * x)

``inputs`` are those that a version takes, in the order ``x0``, ``parameters``,
``controls``, each with the same leading axes: one call is one request, whatever these
are. ``as_jax``, ``as_torch`` and ``as_scipy`` stand on this alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from spnode_client.arrays import real_floats

if TYPE_CHECKING:
    from spnode_client.client import Client

Arrays = tuple[np.ndarray, ...]
_RANK = {"x0": 1, "parameters": 1, "controls": 2}


@dataclass(frozen=True)
class ServedRollout:
    """``x`` of fixed times as a function of its inputs; equal ones are one function.

    Args:
        client: Asks the service.
        reference: The version, ``name/3``.
        names: The inputs that it takes.
        sizes: How many numbers the last axis of each has.
        states: How many states come back.
        times: The output times, as bytes of float64.
        control_times: When controls switch, likewise; empty where they do not.
        options: What else each request has, as items: ``outputs``, ``precision``,
            ``timeout_s``, ….
    """

    client: "Client" = field(repr=False)
    reference: str
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    states: int
    times: bytes
    control_times: bytes = b""
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def is_final(self) -> bool:
        """Whether only the last time comes back, without its axis."""
        return ("final", True) in self.options

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Of one row: ``(time, state)``, or ``(state,)``."""
        count = len(self.times) // 8
        return (self.states,) if self.is_final else (count, self.states)

    @property
    def ranks(self) -> tuple[int, ...]:
        """Number of axes that each input of one row has."""
        return tuple(_RANK[name] for name in self.names)

    def ordered(self, given: Mapping[str, Any], noun: str) -> list[Any]:
        """Those inputs that the version takes, in their order.

        Args:
            given: All inputs by name, None where one was not given.
            noun: What an input is called: ``an array``.

        Raises:
            ValueError: One is missing, or one that the version does not take is there.
        """
        for name, value in given.items():
            if (value is None) == (name in self.names):
                expected = noun if name in self.names else "none"
                raise ValueError(f"{name}: found {value!r}; expected {expected}")
        return [given[name] for name in self.names]

    def check_shapes(self, shapes: Sequence[tuple[int, ...]]) -> None:
        """Refuse inputs that do not end in the axes of one row.

        Raises:
            ValueError: Which one, what it has and what belongs there.
        """
        for name, size, shape in zip(self.names, self.sizes, shapes, strict=True):
            row = (max(1, len(self.control_times) // 8), size)[-_RANK[name] :]
            if shape[-len(row) :] != row:
                expected = f"(…, {', '.join(map(str, row))})"
                if name == "controls" and not self.control_times:
                    expected += ", or control_times, when they switch"
                raise ValueError(
                    f"{name}: found an array of shape {shape}; expected {expected}"
                )

    def batch_shape(self, inputs: Sequence[Any]) -> tuple[int, ...]:
        """The leading axes, which all inputs have."""
        return inputs[0].shape[: inputs[0].ndim - self.ranks[0]]

    def rollout(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """``x``, ``(*batch, [time,] state)``."""
        rows, batch = self._rows(inputs)
        if 0 in batch:
            return np.zeros((*batch, *self.output_shape))
        x0, given = self._request(rows)
        x = self.client.rollout(self.reference, x0, self._times(), **given)
        return x.reshape(*batch, *self.output_shape)

    def jvp(
        self, inputs: Sequence[np.ndarray], tangents: Sequence[np.ndarray]
    ) -> np.ndarray:
        """``J v``, of the shape of ``x``; tangents have the shapes of the inputs."""
        rows, batch = self._rows(inputs)
        if 0 in batch:
            return np.zeros((*batch, *self.output_shape))
        x0, given = self._request(rows)
        moved = dict(zip(self.names, self._rows(tangents)[0], strict=True))
        found = self.client.jvp(self.reference, x0, self._times(), moved, **given)
        return found["jvp"].reshape(*batch, *self.output_shape)

    def vjp(self, inputs: Sequence[np.ndarray], cotangents: np.ndarray) -> Arrays:
        """``J^T w``, of the shapes of the inputs."""
        rows, batch = self._rows(inputs)
        if 0 in batch:
            return tuple(np.zeros(each.shape) for each in inputs)
        x0, given = self._request(rows)
        weights = self._weights(cotangents)
        found = self.client.vjp(self.reference, x0, self._times(), weights, **given)
        return self._by_input(found["vjp"], inputs)

    def hvp(
        self,
        inputs: Sequence[np.ndarray],
        cotangents: np.ndarray,
        tangents: Sequence[np.ndarray],
    ) -> Arrays:
        """``H v`` with the Hessian of ``sum(w * x)``, of the shapes of the inputs."""
        rows, batch = self._rows(inputs)
        if 0 in batch:
            return tuple(np.zeros(each.shape) for each in inputs)
        x0, given = self._request(rows)
        moved = dict(zip(self.names, self._rows(tangents)[0], strict=True))
        weights = self._weights(cotangents)
        found = self.client.hvp(
            self.reference, x0, self._times(), weights, moved, **given
        )
        return self._by_input(found["hvp"], inputs)

    def jacobian(
        self, inputs: Sequence[np.ndarray], by: Sequence[str]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """``x`` and ``dx/d(input)`` of one row, by input: its axes after those of x."""
        x0, given = self._request(tuple(np.asarray(each, float) for each in inputs))
        ask = self.client.jacobian
        found = ask(self.reference, x0, self._times(), by, **given)
        return found["x"], found["jacobian"]

    def _rows(
        self, arrays: Sequence[np.ndarray]
    ) -> tuple[tuple[np.ndarray, ...], tuple[int, ...]]:
        """Every array with one axis of rows, or with none where there is no batch."""
        batch = self.batch_shape(arrays)
        count = (math.prod(batch),) if batch else ()
        rows = (
            real_floats(each).reshape(*count, *each.shape[len(batch) :])
            for each in arrays
        )
        return tuple(rows), batch

    def _weights(self, cotangents: np.ndarray) -> np.ndarray:
        shape = self.output_shape
        lead = cotangents.shape[: cotangents.ndim - len(shape)]
        count = (math.prod(lead),) if lead else ()
        return real_floats(cotangents).reshape(*count, *shape)

    def _by_input(self, found: dict[str, Any], inputs: Sequence[Any]) -> Arrays:
        return tuple(
            np.asarray(found[name]).reshape(each.shape)
            for name, each in zip(self.names, inputs, strict=True)
        )

    def _request(self, rows: Sequence[np.ndarray]) -> tuple[np.ndarray, dict[str, Any]]:
        given: dict[str, Any] = dict(self.options)
        outputs = given.pop("outputs", None)
        wanted: dict[str, Any] = {}
        if given.pop("final", False):
            wanted["times"] = "final"
        if outputs is not None:
            wanted["states"] = list(outputs)
        if wanted:
            given["outputs"] = wanted
        x0, *others = rows
        given |= dict(zip(self.names[1:], others, strict=True))
        if self.control_times:
            given["control_times"] = np.frombuffer(self.control_times)
        return x0, given

    def _times(self) -> np.ndarray:
        return np.frombuffer(self.times)
