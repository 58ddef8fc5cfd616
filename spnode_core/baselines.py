r"""What a surrogate must beat: predictions that need no more than the training data.

::

    constant             x(t) = x0
    linear_dmd           v_{k+1} = M v_k + B p + C u_k + b, least squares
    nearest_trajectory   the training trajectory whose start and inputs are nearest

All in normalised states ``v``. ``k`` counts ticks of a clock: steps of the grid, equal
in the logarithm of time where the grid is logarithmic. Trajectories are brought onto
the ticks by linear interpolation in that clock, so that samples may lie anywhere and
may be missing.

Source:
    Proctor, Brunton & Kutz (2016), SIAM J. Appl. Dyn. Syst. 15, 142-161 (dynamic mode
    decomposition with control).
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from spnode_core.dataset import Dataset
from spnode_core.normaliser import Normaliser, Scaling
from spnode_core.timegrid import TimeGrid

Values = NDArray[np.float64]

# Numbers, ticks, directions and pairs of neighbouring ticks that a linear model is
# fitted to, at most: it takes a second at most then, and more of them change nothing.
_MOST_VALUES = 20_000_000
# Of the least sample of a state: what is predicted below counts as that.
_BELOW_ALL = 0.1
_MOST_TICKS = 1000
_MOST_DIRECTIONS = 32
_MOST_PAIRS = 20_000
# Directions smaller than this part of the largest are noise to a linear model.
_SMALLEST_DIRECTION = 1e-6
# Training data lie in [-1, 1]; a linear model that leaves this has lost its way.
_FARTHEST = 2.0
# Eigenvectors worse conditioned than this do not give their matrix back.
_WORST_CONDITION = 1e8
# Ticks at which the controls of two trajectories are compared.
_CONTROL_TICKS = 16
_ROWS_AT_ONCE = 64


@dataclasses.dataclass(frozen=True)
class Clock:
    """Elapsed time in steps of a grid, fractions included.

    Args:
        first: The first step; the usual one where the grid is not logarithmic.
        ratio: Factor between neighbouring times of a logarithmic grid, else None.
    """

    first: float
    ratio: float | None

    @classmethod
    def of(cls, grid: TimeGrid) -> "Clock":
        """The clock of a grid."""
        if grid.is_logarithmic:
            later = grid.times[1:]
            return cls(float(later[0]), float(np.median(later[1:] / later[:-1])))
        return cls(float(grid.uniform or np.median(np.diff(grid.times))), None)

    def __call__(self, elapsed: Values) -> Values:
        """Ticks of elapsed times."""
        if self.ratio is None:
            return elapsed / self.first
        beyond = np.log(np.maximum(elapsed / self.first, 1.0)) / np.log(self.ratio)
        return np.minimum(elapsed / self.first, 1.0) + beyond


class _Paths(NamedTuple):
    """Trajectories in normalised numbers, without gaps, and their clocks."""

    states: Values
    ticks: Values
    ends: Values
    """Tick of the last sample of each trajectory."""
    parameters: Values
    controls: Values

    def rows(self, chosen: slice) -> "_Paths":
        return _Paths(*(part[chosen] for part in self))


@dataclasses.dataclass(frozen=True)
class Baselines:
    """The trivial models of a dataset.

    Args:
        normaliser: Scalings of the surrogate to compare with.
        grid: Its step grid.
        training: The trajectories that it learned from.
    """

    normaliser: Normaliser
    grid: TimeGrid
    training: Dataset

    def predict(self, dataset: Dataset) -> dict[str, Values]:
        """Normalised states at a dataset's times, ``(trajectory, time, state)``.

        Args:
            dataset: Gives first samples, times, parameters and controls.
        """
        clock = Clock.of(self.grid)
        known = _paths(self.normaliser, self.training, clock)
        asked = _paths(self.normaliser, dataset, clock)
        return {
            "constant": np.repeat(asked.states[:, :1], asked.states.shape[1], axis=1),
            "linear_dmd": _LinearModel.fit(known, asked.ticks.max()).predict(asked),
            "nearest_trajectory": _nearest(known, asked),
        }


def normalised(scaling: Scaling, values: Values) -> Values:
    """Physical numbers in normalised ones, of the same shape ``(..., column)``."""
    flat = values.reshape(int(np.prod(values.shape[:-1])), values.shape[-1])
    found = jax.vmap(scaling.normalise)(jnp.asarray(flat))
    return np.asarray(found).reshape(values.shape)


def measuring(scaling: Scaling, dataset: Dataset) -> Scaling:
    """The scaling in which predictions of a dataset are compared with it.

    What is below the floor of a logarithm counts as that, which is right where there
    are samples of 0. Where a state has none its floor is a tenth of the least sample:
    what is predicted far below all of them errs by a factor of ten at least, and what
    passes 0 in a single sample by no more.
    """
    least = np.min(dataset.states, (0, 1), where=dataset.mask, initial=np.inf)
    return scaling.with_floors(np.where(least > 0, _BELOW_ALL * least, np.inf))


def sizes(scaling: Scaling, dataset: Dataset) -> Values:
    """Size of each state in normalised numbers: of a logarithm a factor of e."""
    largest = np.max(np.abs(dataset.states), (0, 1), where=dataset.mask, initial=0.0)
    width = np.asarray(scaling.width)
    of_kind = {"log": np.ones_like(largest), "asinh": np.arcsinh(largest / width)}
    found = [of_kind.get(kind, largest)[i] for i, kind in enumerate(scaling.kinds)]
    found = np.array(found) / np.asarray(scaling.scale)
    return np.where(found > 0, found, 1.0)


def _paths(normaliser: Normaliser, dataset: Dataset, clock: Clock) -> _Paths:
    ticks = clock(dataset.elapsed)
    states = normalised(normaliser.states, dataset.filled).copy()
    # Gaps are interpolated, and what lies behind the last sample is that sample.
    for row, column in np.argwhere(~dataset.mask.all(axis=1)):
        there = dataset.mask[row, :, column]
        states[row, :, column] = np.interp(
            ticks[row], ticks[row, there], states[row, there, column]
        )
    return _Paths(
        states,
        ticks,
        np.max(ticks, axis=1, where=dataset.present, initial=0.0),
        normalised(normaliser.parameters, dataset.parameters.reshape(len(ticks), -1)),
        normalised(normaliser.controls, dataset.controls.reshape(*ticks.shape, -1)),
    )


def _at(values: Values, ticks: Values, wanted: Values) -> Values:
    """Linear interpolation of one trajectory, ``(time, state)``; held at its ends."""
    if len(ticks) == 1:
        return np.repeat(values, len(wanted), axis=0)
    right = np.clip(np.searchsorted(ticks, wanted), 1, len(ticks) - 1)
    width = ticks[right] - ticks[right - 1]
    part = (wanted - ticks[right - 1]) / np.where(width > 0, width, 1.0)
    part = np.clip(part, 0.0, 1.0)[:, None]
    return values[right - 1] * (1 - part) + values[right] * part


def _held(controls: Values, ticks: Values, wanted: Values) -> Values:
    """The controls of one trajectory that hold from each wanted tick on."""
    last = np.searchsorted(ticks, wanted * (1 + 1e-9), side="right") - 1
    return controls[np.maximum(last, 0)]


def _nearest(known: _Paths, asked: _Paths) -> Values:
    """The nearest training trajectory of each, at the elapsed times of each."""
    ours, theirs = _features(asked), _features(known)
    found = np.empty_like(asked.states)
    for row, feature in enumerate(ours):
        nearest = int(np.argmin(((theirs - feature) ** 2).sum(axis=1)))
        path = known.states[nearest], known.ticks[nearest]
        found[row] = _at(*path, asked.ticks[row])
    return found


def _features(paths: _Paths) -> Values:
    """Start, parameters and controls of each trajectory; a control counts as one."""
    rows = len(paths.ticks)
    at: Values = np.linspace(0.0, 1.0, _CONTROL_TICKS)
    sampled = np.stack(
        [
            _held(paths.controls[row], paths.ticks[row], at * paths.ends[row])
            for row in range(rows)
        ]
    )
    controls = sampled.reshape(rows, -1) / np.sqrt(_CONTROL_TICKS)
    return np.concatenate([paths.states[:, 0], paths.parameters, controls], axis=1)


@dataclasses.dataclass(frozen=True)
class _LinearModel:
    """``y_{k+1} = M y_k + inputs``, in the leading directions ``y`` of the data."""

    directions: Values
    """Orthonormal rows, ``(direction, state)``."""
    matrix: Values
    gains: Values
    """Of parameters, controls and 1, ``(input, direction)``."""
    tick: float
    """Ticks of the clock in one step."""

    @classmethod
    def fit(cls, known: _Paths, end: float) -> "_LinearModel":
        """Fit; growing directions are stopped where that suits the training data."""
        tick = max(1.0, end / _MOST_TICKS)
        # Some trajectory has two of them, however much longer those asked for are.
        tick = min(tick, float(known.ends.max()) or tick)
        per_trajectory = int(np.ceil(end / tick) + 1) * known.states.shape[2]
        rows = range(min(len(known.ticks), 1 + _MOST_VALUES // per_trajectory))
        before, after, inputs = (
            np.concatenate(parts)
            for parts in zip(*(_pairs(known, row, tick) for row in rows), strict=True)
        )
        if not len(before):
            same = np.eye(before.shape[1])
            return cls(same, same, np.zeros((inputs.shape[1], len(same))), tick)
        chosen = np.unique(np.linspace(0, len(before) - 1, _MOST_PAIRS).astype(int))
        before, after, inputs = before[chosen], after[chosen], inputs[chosen]
        _, sizes, directions = np.linalg.svd(before, full_matrices=False)
        kept = int((sizes > _SMALLEST_DIRECTION * sizes[0]).sum())
        directions = directions[: min(max(kept, 1), _MOST_DIRECTIONS)]
        left = np.concatenate([before @ directions.T, inputs], axis=1)
        solved = np.linalg.lstsq(left, after @ directions.T, rcond=1e-10)[0]
        count = len(directions)
        matrix = solved[:count].T
        models = [
            cls(directions, each, solved[count:], tick)
            for each in (matrix, _not_growing(matrix))
        ]
        some = known.rows(slice(_ROWS_AT_ONCE))
        errors = [float(np.mean((m.predict(some) - some.states) ** 2)) for m in models]
        return models[int(np.argmin(errors))]

    def predict(self, asked: _Paths) -> Values:
        """Normalised states at the ticks asked for."""
        found = np.empty_like(asked.states)
        for start in range(0, len(found), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            found[rows] = self._predict(asked.rows(rows))
        return found

    def _predict(self, asked: _Paths) -> Values:
        steps = int(np.ceil(asked.ticks.max() / self.tick))
        ticks = self.tick * np.arange(steps + 1, dtype=np.float64)
        inputs = np.stack(
            [_inputs(asked, row, ticks) for row in range(len(asked.ticks))]
        )
        y = asked.states[:, 0] @ self.directions.T
        path = [y]
        for k in range(steps):
            y = y @ self.matrix.T + inputs[:, k] @ self.gains
            # A direction may leave the box by its length: no state does below.
            y = np.clip(y, -1e6, 1e6)
            path.append(y)
        states = np.clip(
            np.stack(path, axis=1) @ self.directions, -_FARTHEST, _FARTHEST
        )
        return np.stack(
            [_at(s, ticks, t) for s, t in zip(states, asked.ticks, strict=True)]
        )


def _pairs(known: _Paths, row: int, tick: float) -> tuple[Values, Values, Values]:
    """Neighbouring states on the ticks of one trajectory, and the inputs between."""
    count = int(known.ends[row] / tick * (1 + 1e-9)) + 1
    ticks = tick * np.arange(count, dtype=np.float64)
    states = _at(known.states[row], known.ticks[row], ticks)
    return states[:-1], states[1:], _inputs(known, row, ticks)[:-1]


def _inputs(paths: _Paths, row: int, ticks: Values) -> Values:
    """Parameters, controls and 1 of a trajectory at some ticks."""
    same = np.append(paths.parameters[row], 1.0)
    controls = _held(paths.controls[row], paths.ticks[row], ticks)
    return np.concatenate([controls, np.tile(same, (len(ticks), 1))], axis=1)


def _not_growing(matrix: Values) -> Values:
    """The matrix with eigenvalues outside the unit circle moved onto it."""
    values, vectors = np.linalg.eig(matrix)
    largest = float(np.abs(values).max(initial=0.0))
    if largest <= 1.0:
        return matrix
    if np.linalg.cond(vectors) > _WORST_CONDITION:
        return matrix / largest
    values = values / np.maximum(np.abs(values), 1.0)
    return np.real((vectors * values) @ np.linalg.inv(vectors))
