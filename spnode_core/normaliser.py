"""Scalings between physical numbers and the order-one numbers that networks see.

``v = (T(x) - offset) / scale`` per column, ``T`` the identity, the logarithm or asinh;
columns of the data lie in [-1, 1]. Everything is float64: a species of 1e-17 is
learned like any other.
"""

import math
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from spnode_core.data_report import choose_kind
from spnode_core.spec import ScalingKind

# A column that moves by less than this part of its size moves by rounding only.
_STILL = 1e-12
# Columns in more pieces are gathered.
_MOST_SLICES = 8
_LEAST = float(np.finfo(np.float64).tiny)
# The floor of a logarithm: this part of the least positive value, so that 0 is told
# from it, and so many times the largest negative one.
_BELOW, _ABOVE_ROUNDING = 0.3, 10.0
# A column spans decades where its largest value is so many times a small one.
_RARE, _RATIO_FOR_LOGARITHM = 1e-3, 30.0
# What is normalised to within this of its floor was cut off there.
_AT_FLOOR = 1e-6


class Scaling(eqx.Module):
    """``v = (T(x) - offset) / scale``, column by column.

    Args:
        kinds: ``linear``, ``log``, ``asinh``, ``max`` (without an offset) or, left as
            it is, ``none``.
        offset: In units of ``T(x)``.
        scale: Positive, in units of ``T(x)``.
        width: What ``log`` is cut off at from below and what ``asinh`` divides by.
    """

    kinds: tuple[ScalingKind, ...] = eqx.field(static=True)
    offset: Float[Array, " column"]
    scale: Float[Array, " column"]
    width: Float[Array, " column"]

    @classmethod
    def skeleton(cls, kinds: Sequence[ScalingKind]) -> "Scaling":
        """A scaling of the right shape, to be filled from an artifact."""
        ones = jnp.ones(len(kinds), jnp.float64)
        return cls(tuple(kinds), ones, ones, ones)

    def normalise(self, x: Float[Array, " column"]) -> Float[Array, " column"]:
        """Physical to normalised."""
        transformed = x
        if "log" in self.kinds:
            logarithm = jnp.log(jnp.maximum(x, self.width))
            transformed = jnp.where(self._is("log"), logarithm, transformed)
        if "asinh" in self.kinds:
            transformed = jnp.where(
                self._is("asinh"), jnp.arcsinh(x / self.width), transformed
            )
        return (transformed - self.offset) / self.scale

    def errors(
        self, x: Float[Array, " column"], target: Float[Array, " column"]
    ) -> Float[Array, " column"]:
        """What predictions err by, normalised, with a slope below the floors too.

        A logarithm goes on below its floor where the target lies above it: cut off, it
        would pull nothing up. For a target at the floor, all below is as good.

        Args:
            x: Predictions, physical.
            target: Normalised samples.
        """
        normalised = self.normalise(x)
        if "log" not in self.kinds:
            return normalised - target
        is_above = target > self.normalise(self.width) + _AT_FLOOR
        is_lost = self._is("log") & (x < self.width) & is_above
        logarithm = _continued(jnp.where(is_lost, x, self.width), self.width)
        continued = (logarithm - self.offset) / self.scale
        return jnp.where(is_lost, continued, normalised) - target

    def restore(self, v: Float[Array, " column"]) -> Float[Array, " column"]:
        """Normalised to physical."""
        transformed = v * self.scale + self.offset
        x = transformed
        if "log" in self.kinds:
            is_log = self._is("log")
            x = jnp.where(is_log, jnp.exp(jnp.where(is_log, transformed, 0.0)), x)
        if "asinh" in self.kinds:
            is_asinh = self._is("asinh")
            argument = jnp.where(is_asinh, transformed, 0.0)
            x = jnp.where(is_asinh, self.width * jnp.sinh(argument), x)
        return x

    def with_floors(self, floors: NDArray[np.float64]) -> "Scaling":
        """The same with logarithms cut off no higher than at these values."""
        width = np.asarray(self.width)
        width = np.where(self._is("log"), np.minimum(width, floors), width)
        return Scaling(self.kinds, self.offset, self.scale, jnp.asarray(width))

    def take(self, chosen: Sequence[int]) -> "Scaling":
        """The scaling of some of the columns."""
        return Scaling(
            tuple(self.kinds[i] for i in chosen),
            picked(self.offset, chosen),
            picked(self.scale, chosen),
            picked(self.width, chosen),
        )

    def _is(self, kind: ScalingKind) -> NDArray[np.bool_]:
        return np.array([k == kind for k in self.kinds])


def _continued(
    x: Float[Array, " column"], floor: Float[Array, " column"]
) -> Float[Array, " column"]:
    """The logarithm, going on to 0 and below with slopes of ``1 / floor`` at most.

    Slopes of what is positive are those of the logarithm, so that outputs which are
    exponentials are moved by the ratio, however small they are.
    """
    number = jnp.finfo(x.dtype)
    # Slopes in smaller numbers, multiplied by an error, would leave the finite range.
    safe = float(number.tiny) / float(number.eps)
    least, unit = jnp.minimum(floor, safe), jnp.maximum(floor, safe)
    beyond = jnp.maximum(least - x, 0.0)
    return jnp.log(jnp.maximum(x, least)) - (jnp.log(unit + beyond) - jnp.log(unit))


def picked(
    values: Float[Array, " column"], chosen: Sequence[int] | NDArray[np.int_]
) -> Float[Array, " chosen"]:
    """``values[chosen]``, by slices where neighbours stay together.

    XLA computes slices within what reads them; to gather is an operation of its own,
    and scatters on the way back.
    """
    index = np.asarray(chosen, np.int64)
    starts = np.flatnonzero(np.diff(index, prepend=index[:1] - 2) != 1)
    if not 0 < len(starts) <= _MOST_SLICES:
        return values[index]
    runs = np.split(index, starts[1:])
    pieces = [values[run[0] : run[-1] + 1] for run in runs]
    return pieces[0] if len(pieces) == 1 else jnp.concatenate(pieces)


def fit_scaling(
    values: NDArray[np.float64],
    kinds: Sequence[ScalingKind] | None = None,
    *,
    still: float = _STILL,
) -> Scaling:
    """The scaling that maps each column of the data onto [-1, 1].

    Args:
        values: ``(sample, column)``, NaN where missing.
        kinds: Kind of each column; chosen from the data where None.
        still: A column whose range is below this part of its size counts as one that
            never moves, and keeps its size as its scale: noise is not blown up.
    """
    columns = values.reshape(math.prod(values.shape[:-1]), values.shape[-1]).T
    if kinds is None:
        kinds = [choose_kind(column) for column in columns]
    fitted = [_fit_column(c, k, still) for c, k in zip(columns, kinds, strict=True)]
    table = np.array(fitted, np.float64).reshape(len(fitted), 3)
    offset, scale, width = (jnp.asarray(table[:, i]) for i in range(3))
    return Scaling(tuple(kinds), offset, scale, width)


def _fit_column(
    column: NDArray[np.float64], kind: ScalingKind, still: float
) -> tuple[float, float, float]:
    values = column[np.isfinite(column)]
    width = 1.0
    if kind == "none":
        return 0.0, 1.0, width
    if kind == "max":
        return 0.0, float(np.abs(values).max(initial=0.0)) or 1.0, width
    if kind == "log":
        values = values[values > 0]
        # What is smaller still is 0 for compiled code, and its logarithm no number.
        values = np.maximum(values, _LEAST)
        width = float(values.min(initial=np.inf)) if values.size else 1.0
        values = np.log(values)
    elif kind == "asinh":
        median = float(np.median(np.abs(values)))
        width = max(median, _LEAST) if median else 1.0
        values = np.arcsinh(values / width)
    if values.size == 0:
        return 0.0, 1.0, width
    low, high = float(values.min()), float(values.max())
    offset, scale = (low + high) / 2, (high - low) / 2
    if scale <= still * abs(offset):
        scale = abs(offset) or 1.0
    return offset, scale, width


def logarithm_floor(values: NDArray[np.float64]) -> float | None:
    """From where on a column's logarithm tells something; None where it nowhere does.

    The column spans decades and is not negative, but for the rounding of a solver.

    Args:
        values: Values of one column, NaN where missing.
    """
    positive = values[np.isfinite(values) & (values > _LEAST)]
    if positive.size == 0:
        return None
    floor = _floor(values)
    typical = max(float(np.quantile(positive, _RARE)), floor)
    return floor if positive.max() > _RATIO_FOR_LOGARITHM * typical else None


def _floor(values: NDArray[np.float64]) -> float:
    """Below the least positive value, and well above the rounding of a solver."""
    found = values[np.isfinite(values)]
    least = found[found > _LEAST].min(initial=np.inf)
    if not np.isfinite(least):
        return 1.0
    return float(max(_BELOW * least, -_ABOVE_ROUNDING * found.min()))


def fit_logarithms(values: NDArray[np.float64]) -> Scaling:
    """The scaling of logarithms beside the states, cut off at their floors.

    Args:
        values: ``(sample, column)``, NaN where missing.
    """
    floors = [_floor(column) for column in values.T]
    kinds: list[ScalingKind] = ["log"] * len(floors)
    return fit_scaling(np.maximum(values, floors), kinds)


class Normaliser(eqx.Module):
    """The scalings of states, conserved sums, parameters and controls.

    None of its numbers is ever trained.

    Args:
        logarithms: Of the states whose logarithms the encoder sees too; None where
            there are none.
    """

    states: Scaling
    sums: Scaling
    parameters: Scaling
    controls: Scaling
    logarithms: Scaling | None = None
