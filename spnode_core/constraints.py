"""From the decoder's free outputs to states that obey signs and conserved sums exactly.

A stable linear operator cannot hold a conserved quantity by itself, so the sums are
taken from each initial state and the decoder spends one state on each of them.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float
from numpy.typing import NDArray

from spnode_core.errors import InvalidInput
from spnode_core.normaliser import Scaling, picked

# Positive states may exceed what the data showed by this factor, and no more; those on
# a logarithmic scale by as much of half their range.
HEADROOM = 1.2
# Steepness of the sigmoids, so that inputs in [-1, 1] use most of their range.
_SLOPE = 2.0


class AbstractConstraint:
    """A map from free outputs and sums to states; it has nothing to learn."""

    free: tuple[int, ...]
    """The states, by index, whose normalised values the outputs approximate."""

    @abstractmethod
    def states(
        self,
        outputs: Float[Array, " free"],
        sums: Float[Array, " sum"],
        scaling: Scaling,
    ) -> Float[Array, " state"]:
        """Physical states.

        Args:
            outputs: One number for each of ``free``, dimensionless.
            sums: The conserved sums of the initial state.
            scaling: That of the states.
        """


@dataclass(frozen=True)
class Unconstrained(AbstractConstraint):
    """States are the outputs, scaled back."""

    free: tuple[int, ...]

    def states(
        self,
        outputs: Float[Array, " free"],
        sums: Float[Array, " sum"],
        scaling: Scaling,
    ) -> Float[Array, " state"]:
        """Physical states."""
        return scaling.restore(outputs)


@dataclass(frozen=True)
class Conserving(AbstractConstraint):
    """One state for each sum is solved for: ``C x`` is exactly the initial sums.

    Args:
        coefficients: Rows ``C`` of the sums, ``(sum, state)``.
        pivots: The states solved for, one for each sum.
        free: The others.
    """

    coefficients: tuple[tuple[float, ...], ...]
    pivots: tuple[int, ...]
    free: tuple[int, ...]

    def states(
        self,
        outputs: Float[Array, " free"],
        sums: Float[Array, " sum"],
        scaling: Scaling,
    ) -> Float[Array, " state"]:
        """Physical states."""
        matrix = np.array(self.coefficients)
        free, pivots = list(self.free), list(self.pivots)
        known = scaling.take(self.free).restore(outputs)
        rest = np.linalg.inv(matrix[:, pivots]) @ (sums - matrix[:, free] @ known)
        return picked(jnp.concatenate([known, rest]), np.argsort(free + pivots))


@dataclass(frozen=True)
class Positive(AbstractConstraint):
    """Bounded positive states; those of one sum break it as a stick.

    Small states take ``min(upper, rest / c) sigmoid(2 d)`` in turn, the largest of
    each sum takes what is left. States of no sum are ``upper sigmoid(2 d)``. On a
    logarithmic scale it is the logarithm that is bounded, and ``rest / c`` that caps.

    Args:
        coefficients: Rows of the sums, no state in two of them, none negative.
        groups: States of each sum, smallest first.
        free: All states but the last of each group.
    """

    coefficients: tuple[tuple[float, ...], ...]
    groups: tuple[tuple[int, ...], ...]
    free: tuple[int, ...]

    def states(
        self,
        outputs: Float[Array, " free"],
        sums: Float[Array, " sum"],
        scaling: Scaling,
    ) -> Float[Array, " state"]:
        """Physical states."""
        count = len(scaling.kinds)
        full = jnp.zeros(count, outputs.dtype).at[np.array(self.free)].set(outputs)
        share = jax.nn.sigmoid(_SLOPE * full)
        # A logarithmic state keeps its resolution: its logarithm is what is bounded.
        squashed = HEADROOM * jnp.tanh(full / HEADROOM)
        is_log = np.array([kind == "log" for kind in scaling.kinds])
        upper = HEADROOM * scaling.restore(jnp.ones(count, full.dtype))
        logarithmic = scaling.restore(jnp.where(is_log, squashed, 0.0))
        states = jnp.where(is_log, logarithmic, upper * share)
        for row, group in enumerate(self.groups):
            rest = sums[row]
            for i in group[:-1]:
                weight = self.coefficients[row][i]
                most = rest / weight
                value = (
                    jnp.minimum(states[i], most)
                    if is_log[i]
                    else jnp.minimum(upper[i], most) * share[i]
                )
                states = states.at[i].set(value)
                rest = rest - weight * value
            last = group[-1]
            states = states.at[last].set(rest / self.coefficients[row][last])
        return states


def create_constraint(
    coefficients: NDArray[np.float64],
    *,
    positive: bool,
    sizes: NDArray[np.float64],
    names: Sequence[str],
) -> AbstractConstraint:
    """The constraint of a surrogate.

    Args:
        coefficients: Rows of the conserved sums, ``(sum, state)``.
        positive: Whether states must be positive.
        sizes: Typical size of each state, to choose which are solved for.
        names: Names of the states, for errors.

    Raises:
        InvalidInput: Sums that depend on each other, or that positivity cannot keep.
    """
    count = len(names)
    if len(coefficients) == 0:
        everything = tuple(range(count))
        return Positive((), (), everything) if positive else Unconstrained(everything)
    rows = tuple(tuple(map(float, row)) for row in coefficients)
    if positive:
        return _breaking(coefficients, rows, sizes)
    scaled = coefficients * sizes
    # The return type depends on the arguments, which its stubs cannot say.
    factors: Any = scipy.linalg.qr(scaled, pivoting=True, mode="economic")
    triangle, order = factors[1], factors[2]
    diagonal = np.abs(np.diag(triangle))
    if len(rows) > count or diagonal.min() < 1e-12 * diagonal.max():
        raise InvalidInput(
            "surrogate.conserved",
            found=f"{len(rows)} sums that depend on each other",
            expected="independent sums",
        )
    pivots = tuple(int(i) for i in order[: len(rows)])
    return Conserving(rows, pivots, tuple(i for i in range(count) if i not in pivots))


def _breaking(
    coefficients: NDArray[np.float64],
    rows: tuple[tuple[float, ...], ...],
    sizes: NDArray[np.float64],
) -> Positive:
    if (coefficients < 0).any() or ((coefficients != 0).sum(axis=0) > 1).any():
        raise InvalidInput(
            "surrogate.conserved",
            found="sums with negative coefficients, or with a state in two of them",
            expected="disjoint sums with positive coefficients where positive is true",
        )
    groups = []
    for row in coefficients:
        members = np.flatnonzero(row)
        ascending = members[np.argsort((row * sizes)[members], kind="stable")]
        groups.append(tuple(int(i) for i in ascending))
    last = {group[-1] for group in groups}
    free = tuple(i for i in range(len(sizes)) if i not in last)
    return Positive(rows, tuple(groups), free)
