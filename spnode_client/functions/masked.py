"""A rollout in the service whose rows fail alone: they are NaN, and others as they are.

A search or a sampler tries inputs at which a trajectory leaves the finite range, after
which its next ones may be NaN: neither ends what it asks for all other rows.

::

    x = NaN        Jv = J^T w = H(w) v = NaN, but 0 where w (or v) is 0

so that a loss that leaves those rows out has the gradient of the others, by what all of
them share too.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from spnode_client.arrays import real_floats
from spnode_client.functions.served import Arrays, ServedRollout


class MaskedRollout(ServedRollout):
    """``ServedRollout`` with ``on_error="mask"``, which its options have too."""

    def rollout(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """``x``, NaN in rows that fail."""
        ask = super().rollout
        shapes = [self.output_shape]
        return self._apart(lambda *rows: [ask(rows)], shapes, inputs)[0]

    def jvp(
        self, inputs: Sequence[np.ndarray], tangents: Sequence[np.ndarray]
    ) -> np.ndarray:
        """``J v``, NaN in rows that fail, where they move."""
        ask, count = super().jvp, len(self.names)
        found = self._apart(
            lambda *rows: [ask(rows[:count], rows[count:])],
            [self.output_shape],
            inputs,
            *tangents,
        )
        self._rest(found, inputs, tangents)
        return found[0]

    def vjp(self, inputs: Sequence[np.ndarray], cotangents: np.ndarray) -> Arrays:
        """``J^T w``, NaN in rows that fail, where they have weight."""
        ask = super().vjp
        found = self._apart(
            lambda *rows: ask(rows[:-1], rows[-1]),
            self._input_shapes(inputs),
            inputs,
            cotangents,
        )
        self._rest(found, inputs, [cotangents])
        return found

    def hvp(
        self,
        inputs: Sequence[np.ndarray],
        cotangents: np.ndarray,
        tangents: Sequence[np.ndarray],
    ) -> Arrays:
        """``H v``, NaN in rows that fail, where they move and have weight."""
        ask, count = super().hvp, len(self.names)
        found = self._apart(
            lambda *rows: ask(rows[:count], rows[count], rows[count + 1 :]),
            self._input_shapes(inputs),
            inputs,
            cotangents,
            *tangents,
        )
        self._rest(found, inputs, [cotangents])
        self._rest(found, inputs, tangents)
        return found

    def jacobian(
        self, inputs: Sequence[np.ndarray], by: Sequence[str]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """``x`` and its derivatives of one row, all NaN where it fails."""
        if all(np.isfinite(each).all() for each in inputs):
            return super().jacobian(inputs, by)
        shapes = dict(zip(self.names, self._input_shapes(inputs), strict=True))
        jacobians = {
            name: np.full((*self.output_shape, *shapes[name]), np.nan) for name in by
        }
        return np.full(self.output_shape, np.nan), jacobians

    def _input_shapes(self, inputs: Sequence[np.ndarray]) -> list[tuple[int, ...]]:
        """Of one row."""
        lead = len(self.batch_shape(inputs))
        return [each.shape[lead:] for each in inputs]

    def _apart(
        self,
        ask: Callable[..., Sequence[np.ndarray]],
        shapes: Sequence[tuple[int, ...]],
        inputs: Sequence[np.ndarray],
        *others: np.ndarray,
    ) -> Arrays:
        """What comes of the rows whose numbers are all finite; the others are NaN.

        Args:
            ask: From operands with an axis of rows to arrays that have it.
            shapes: Of one row of these.
            inputs: With the batch's axes.
            *others: Operands that have these too.
        """
        batch = self.batch_shape(inputs)
        count = math.prod(batch)
        operands = [
            real_floats(each).reshape(count, *each.shape[len(batch) :])
            for each in (*inputs, *others)
        ]
        finite = np.ones(count, bool)
        for each in operands:
            finite &= np.isfinite(each).all(axis=tuple(range(1, each.ndim)))
        found = [np.full((count, *shape), np.nan) for shape in shapes]
        if finite.any():
            answers = ask(*(each[finite] for each in operands))
            for each, answer in zip(found, answers, strict=True):
                each[finite] = answer
        return tuple(
            each.reshape(*batch, *shape)
            for each, shape in zip(found, shapes, strict=True)
        )

    def _rest(
        self,
        found: Arrays,
        inputs: Sequence[np.ndarray],
        directions: Sequence[np.ndarray],
    ) -> None:
        """Zeros in rows whose directions are zeros, whatever became of them."""
        lead = len(self.batch_shape(inputs))
        moves = np.zeros(self.batch_shape(inputs), bool)
        for each in directions:
            moves |= (np.asarray(each) != 0).any(axis=tuple(range(lead, each.ndim)))
        for each in found:
            each[~moves] = 0.0
