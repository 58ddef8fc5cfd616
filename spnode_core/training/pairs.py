"""Pairs of samples of a trajectory: a later one from an earlier one, in one step.

With ``f = 0`` a step of any length is exact, so nothing is rolled out: encode a sample,
let each mode decay, decode. Samples of all ages are met as starts, as in use.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray
from numpy.typing import NDArray

from spnode_core.baselines import normalised, sizes
from spnode_core.dataset import Dataset
from spnode_core.deviations import spread
from spnode_core.samples import Problem, Samples, problem_on
from spnode_core.spec import (
    DissipativeSpec,
    HurwitzSpec,
    ModalSpec,
    TrainingSpec,
)
from spnode_core.surrogate import Surrogate
from spnode_core.timegrid import Plan
from spnode_core.training.devices import over_devices
from spnode_core.training.losses import training_loss
from spnode_core.training.objectives import noisy

# So many of the pairs begin where trajectories do, as rollouts mostly will.
_FROM_STARTS = 0.3
_VALIDATED = 4096
# What has come to rest stays there: so many pairs end past the data, up to the time at
# which what it still moved, going on, would come to this part of the spread.
_BEYOND, _FARTHEST = 0.1, 1000.0
_AT_REST, _MOVED = 1e-4, 1e-3


class PairData(NamedTuple):
    """Trajectories to draw pairs from."""

    samples: Samples
    """Errors are weighed in units of the spread of each state, but those of the loss
    ``relative``."""
    states: Float[Array, "row time state"]
    elapsed: Float[Array, "row time"]
    starts: Int[Array, " start"]
    """Samples without a missing state, ``row * time + index``."""
    last: Int[Array, " row"]
    """Index of the last sample of each trajectory."""
    reach: Float[Array, " row"]
    """Up to so many times its end a trajectory stays at its last sample; 1 where it has
    not come to rest."""


class PairObjective:
    """The error of later samples, each from an earlier one of its trajectory.

    Args:
        train: Trajectories to learn from.
        held: Trajectories to choose the best parameters by.
        surrogate: Gives scalings.
        spec: Number of pairs, weights of the times and noise.
        seed: Source of the pairs that parameters are chosen by.
    """

    def __init__(
        self,
        train: Dataset,
        held: Dataset,
        surrogate: Surrogate,
        spec: TrainingSpec,
        seed: int,
    ) -> None:
        self._spec, self._scaling = spec, surrogate.normaliser.states
        # Those of training judge too: few trajectories are held out, and a state may
        # stand still in all of them.
        units = _units(train, surrogate)
        self.data = _pair_data(train, surrogate, spec.loss, units)
        drawn = jax.random.fold_in(jax.random.key(seed), 41)
        held_out = _pair_data(held, surrogate, spec.loss, units)
        self.validation = _pairs(held_out, drawn, _VALIDATED)

    def batch(self, data: PairData, key: PRNGKeyArray) -> Problem:
        """Some pairs, laid over the devices."""
        problem = _pairs(data, key, self._spec.batch)
        if self._spec.noise > 0:
            by = jax.random.fold_in(key, 2)
            problem = noisy(problem, self._scaling, self._spec.noise, by)
        samples = over_devices(problem.samples, self._spec.batch)
        return problem._replace(samples=samples)

    def loss(self, surrogate: Surrogate, batch: Problem) -> Float[Array, ""]:
        """Mean squared error in units of the spread."""
        return training_loss(surrogate, batch)

    def validation_loss(self, surrogate: Surrogate, data: Problem) -> Float[Array, ""]:
        """The same."""
        return training_loss(surrogate, data)


class _Units(NamedTuple):
    """Standard deviations of the training samples, normalised."""

    states: NDArray[np.float64]
    logarithms: NDArray[np.float64]


def _units(dataset: Dataset, surrogate: Surrogate) -> _Units:
    scaling = surrogate.normaliser.states
    states = normalised(scaling, dataset.filled)
    logarithms = _logarithms(dataset, surrogate)
    complete = dataset.mask.all(axis=2)
    return _Units(
        spread(states, dataset.later, sizes(scaling, dataset)),
        np.maximum(logarithms[complete].std(axis=0), 1e-300),
    )


def _logarithms(dataset: Dataset, surrogate: Surrogate) -> NDArray[np.float64]:
    """Those that the encoder sees of all samples, normalised."""
    scaling, filled = surrogate.normaliser.logarithms, dataset.filled
    if scaling is None:
        return filled[..., :0]
    columns = surrogate.spec.logarithm_columns(dataset.names)
    return normalised(scaling, filled[..., columns])


def _pair_data(
    dataset: Dataset, surrogate: Surrogate, loss: str, units: _Units
) -> PairData:
    samples = problem_on(dataset, surrogate, (), loss=loss).samples
    weight = np.asarray(samples.weight) * dataset.present.sum(axis=1)[:, None, None]
    if loss != "relative":
        weight = weight / units.states**2
    complete = np.asarray(dataset.mask.all(axis=2))
    times = np.arange(dataset.present.shape[1])
    last = np.where(dataset.present, times, 0).max(axis=1)
    reach = np.ones(len(last))
    if _decays(surrogate):
        states, logarithms = np.asarray(samples.target), _logarithms(dataset, surrogate)
        given = (complete, dataset.elapsed, last)
        moved = np.maximum(
            _moved(states / units.states, *given),
            # What vanishes by decades stands still; what grows by them does not.
            _moved(logarithms / units.logarithms, *given, is_rise=True),
        )
        reach = np.clip(_MOVED / np.maximum(moved, 1e-300), 1.0, _FARTHEST)
        reach = np.where(moved < _AT_REST, reach, 1.0)
    return PairData(
        samples._replace(weight=jnp.asarray(weight)),
        jnp.asarray(dataset.filled),
        jnp.asarray(dataset.elapsed),
        jnp.asarray(np.flatnonzero(complete), jnp.int32),
        jnp.asarray(last, jnp.int32),
        jnp.asarray(reach),
    )


def _decays(surrogate: Surrogate) -> bool:
    """Whether no step is too long, since A decays by construction."""
    linear = surrogate.spec.linear
    is_stable = isinstance(linear, ModalSpec | HurwitzSpec | DissipativeSpec)
    return is_stable and linear.shift == 0


def _moved(
    columns: NDArray[np.float64],
    complete: NDArray[np.bool_],
    elapsed: NDArray[np.float64],
    last: NDArray[np.int_],
    *,
    is_rise: bool = False,
) -> NDArray[np.float64]:
    """How far what moves most moves in the second half of each trajectory's time.

    Args:
        columns: In units of their spread, ``(row, time, column)``.
        complete: Samples without a missing state.
        elapsed: Their times.
        last: Index of the last sample of each.
        is_rise: Whether only what rises counts, to the last sample.

    Returns:
        By row; infinite where there is one sample only.
    """
    rows = np.arange(len(last))
    late = complete & (elapsed >= elapsed[rows, last][:, None] / 2)
    there = late[..., None]
    least = np.min(columns, axis=1, where=there, initial=np.inf)
    most = np.max(columns, axis=1, where=there, initial=-np.inf)
    upper = columns[rows, last] if is_rise else most
    moved = np.max(upper - least, axis=1, initial=0.0)
    return np.where(late.sum(axis=1) > 1, moved, np.inf)


def _pairs(data: PairData, key: PRNGKeyArray, count: int) -> Problem:
    """Random pairs, as rollouts of one step each."""
    rows, times = data.elapsed.shape
    keys = jax.random.split(key, 5)
    place = jax.random.randint(keys[0], (count,), 0, data.starts.shape[0])
    row, index = data.starts[place] // times, data.starts[place] % times
    is_first = jax.random.uniform(keys[1], (count,)) < _FROM_STARTS
    row = jnp.where(is_first, jax.random.randint(keys[2], (count,), 0, rows), row)
    index = jnp.where(is_first, 0, index)
    ahead = jax.random.uniform(keys[3], (count,)) * (data.last[row] - index + 1)
    end = jnp.minimum(index + ahead.astype(jnp.int32), data.last[row])
    drawn, part = jax.random.uniform(keys[4], (2, count))
    is_beyond = (drawn < _BEYOND) & (data.reach[row] > 1)
    end = jnp.where(is_beyond, data.last[row], end)
    later = data.reach[row] ** (part * is_beyond)
    whole = data.samples
    samples = Samples(
        x0=data.states[row, index],
        target=whole.target[row, end][:, None],
        weight=whole.weight[row, end][:, None],
        parameters=whole.parameters[row],
        controls=whole.controls[row],
    )
    plan = _one_step(data.elapsed[row, end] * later - data.elapsed[row, index])
    return Problem(samples, (plan,))


def _one_step(steps: Float[Array, " row"]) -> Plan:
    """The plan of rollouts that take one step to their end, and none on a grid."""
    first: Any = jnp.zeros((steps.shape[0], 1), jnp.int32)
    none: Any = jnp.zeros(0, jnp.int32)
    step: Any = steps[:, None]
    no_time: Any = jnp.zeros(0, jnp.float64)
    return Plan(
        distinct=no_time,
        step_kind=none,
        step_control=none,
        output_index=first,
        output_step=step,
        output_control=first,
        on_grid=False,
    )
