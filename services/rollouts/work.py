"""What is to be computed, and how its answer is shaped: the words of the hot path."""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from services.rollouts.jacobian import Columns
from services.rollouts.request import DIFFERENTIABLE, Arrays
from services.rollouts.served import Served
from services.rollouts.sweep import Grid


# Hashed or made at every request, as those of a few other modules are: a NamedTuple
# takes a fifth of the time that a frozen dataclass does.
class Limits(NamedTuple):
    """What one request may ask for."""

    rows: int
    times: int
    output_values: int


class Variant(NamedTuple):
    """How a batch is computed, where there is a choice; part of the batching key.

    Args:
        throughput: Large tiles: more rows a second, and a row's bits then depend on the
            size of its batch.
        double: Networks in float64, whatever dtype their weights were stored in.
    """

    throughput: bool = False
    double: bool = False


USUAL = Variant()
"""Fixed tiles, networks in their own dtype."""


@dataclass(frozen=True)
class Work:
    """One request in the form that executors take.

    Args:
        operation: One of ``services.rollouts.operations``.
        digest: The artifact to run.
        rows: Arrays with a leading axis of rows.
        shared: Arrays that every row shares: ``times``, ``control_times``.
        count: Number of rows.
        variant: How they are computed.
        members: How many an ensemble has; a rollout of one gives its spread too.
        served: The version, where what is computed is looked over with its batch.
    """

    operation: str
    digest: str
    rows: Arrays
    shared: Arrays
    count: int
    variant: Variant = USUAL
    members: int = 1
    served: Served | None = None

    def of(self, rows: Arrays, served: Served | None = None) -> "Work":
        """The same for other rows, of the same shapes and dtypes, of this version."""
        work = object.__new__(Work)
        same = {"key": self.key, "expected_bytes": self.expected_bytes}
        work.__dict__.update(self.__dict__, rows=rows, served=served, **same)
        return work

    @functools.cached_property
    def key(self) -> tuple:
        """What must be equal for rows of two requests to run in one batch."""
        return (
            self.digest,
            self.operation,
            self.variant,
            *((name, array.tobytes()) for name, array in sorted(self.shared.items())),
            *((name, array.shape[1:]) for name, array in sorted(self.rows.items())),
        )

    @functools.cached_property
    def expected_bytes(self) -> int:
        """Bytes of its inputs and of the answer that it will have."""
        given = sum(array.nbytes for array in self.rows.values())
        shared = sum(array.nbytes for array in self.shared.values())
        inputs = sum(
            array.nbytes for name, array in self.rows.items() if name in DIFFERENTIABLE
        )
        # float64 whatever the inputs are: x0 has as many states as x.
        trajectory = 8 * self.rows["x0"].size * len(self.shared["times"])
        match self.operation:
            case "latent":
                answer = 2 * trajectory
            case "jvp":
                answer = trajectory * (1 + self._directions)
            case "vjp":
                answer = trajectory + inputs * self._directions
            case "hvp":
                answer = inputs * (1 + self._directions)
            case "objective":
                answer = inputs
            case _:
                answer = trajectory * (2 if self.members > 1 else 1)
        return given + shared + answer

    @property
    def _directions(self) -> int:
        """How many directions, or cotangents of a vjp, each row has."""
        prefix = "cotangents" if self.operation == "vjp" else "tangents."
        name = next(name for name in self.rows if name.startswith(prefix))
        return self.rows[name].shape[1]


class RowResults(Arrays):
    """What was computed of a request, by name, with the rows in their order."""

    plain = False
    """Whether it is finite, and its rows lie inside the training data, as far as it has
    been looked at with its batch."""


@dataclass(frozen=True)
class Layout:
    """How the answer to a request is shaped.

    Args:
        batched: Whether ``x`` has an axis of rows.
        count: Number of rows that the request has.
        ranks: Number of axes that each input had when it was given.
        times: The output times.
        final: Whether only the last time is returned, without its axis.
        states: Indices of the states to return, None for all.
        directions: Length of the leading axis of tangents or cotangents, None without
            one.
        columns: How a Jacobian is computed, where one is asked for.
        grid: What the rows stand for, where they are those of a sweep.
        coverage: Of the prediction intervals that are asked for, if any are.
        spread: Whether the spread of an ensemble is asked for.
    """

    batched: bool
    count: int
    ranks: dict[str, int]
    times: np.ndarray
    final: bool
    states: list[int] | None
    directions: int | None = None
    columns: Columns | None = None
    grid: Grid | None = None
    coverage: float | None = None
    spread: bool = False

    @property
    def repeats(self) -> int:
        """How often each row is computed, one after the other."""
        return 1 if self.columns is None else self.columns.pieces

    @property
    def leading(self) -> tuple[int, ...]:
        """The shape of that axis."""
        return () if self.directions is None else (self.directions,)
