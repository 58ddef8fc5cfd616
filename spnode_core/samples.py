"""A dataset as the arrays that training runs on, and the plans of its rollouts."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import NDArray

from spnode_core.dataset import Dataset
from spnode_core.surrogate import Surrogate
from spnode_core.timegrid import Plan, TimeGrid

# A relative error is not asked for below this part of a state's largest value.
_RELATIVE_FLOOR = 1e-3
# Times this close, relatively, are one time.
_SAME = 1e-9


class Samples(NamedTuple):
    """Trajectories to compare rollouts with; missing samples have weight 0.

    The weights of one trajectory sum to 1 over its times and states.
    """

    x0: Float[Array, "batch state"]
    target: Float[Array, "batch time state"]
    """Normalised states."""
    weight: Float[Array, "batch time state"]
    parameters: Float[Array, "batch parameter"]
    controls: Float[Array, "batch interval control"]


class Problem(NamedTuple):
    """Samples and the plans to roll them out by: the grid, then its refinement."""

    samples: Samples
    plans: tuple[Plan, ...]

    def rows(self, index: Int[Array, " row"]) -> "Problem":
        """Some of the trajectories."""
        samples = jax.tree.map(lambda leaf: leaf[index], self.samples)
        return Problem(samples, tuple(plan.rows(index) for plan in self.plans))


def build_problem(
    dataset: Dataset, surrogate: Surrogate, *, loss: str, refine: int
) -> Problem:
    """Arrays of a dataset for the loss of one surrogate.

    Args:
        dataset: Trajectories to compare with.
        surrogate: Gives scalings and step grid.
        loss: Weights of the times, a field of ``TrainingSpec``.
        refine: Factor of the second plan's grid; 1 means no second plan.
    """
    grids = [surrogate.grid] + [surrogate.grid.refined(refine)] * (refine > 1)
    return problem_on(dataset, surrogate, tuple(grids), loss=loss)


def problem_on(
    dataset: Dataset,
    surrogate: Surrogate,
    grids: tuple[TimeGrid, ...],
    *,
    loss: str = "uniform",
) -> Problem:
    """Arrays of a dataset, with a plan on each of the grids."""
    controls, control_times = _controls(dataset, surrogate.grid)
    times = dataset.elapsed
    if (times == times[0]).all():
        times = times[0]
    plans = tuple(_on_device(grid.plan(times, control_times)) for grid in grids)
    states = dataset.filled
    normalise = jax.vmap(jax.vmap(surrogate.normaliser.states.normalise))
    samples = Samples(
        x0=jnp.asarray(states[:, 0]),
        target=normalise(jnp.asarray(states)),
        weight=jnp.asarray(_weights(dataset, surrogate, loss)),
        parameters=jnp.asarray(dataset.parameters),
        controls=jnp.asarray(controls),
    )
    return Problem(samples, plans)


def _on_device(plan: Plan) -> Plan:
    return jax.tree.map(jnp.asarray, plan)


def _controls(
    dataset: Dataset, grid: TimeGrid
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Control values by interval, and the intervals' starts where there are any.

    Where trajectories have times of their own, all switch whenever one does. Where that
    is more often than one is sampled and the grid steps, each step takes the mean.
    """
    if not dataset.control_names:
        return np.zeros((dataset.trajectories, 1, 0)), None
    elapsed = dataset.elapsed
    if (elapsed == elapsed[0]).all():
        return dataset.controls, elapsed[0]
    rows = list(zip(dataset.controls, elapsed, strict=True))
    steps = grid.extended(float(elapsed.max()))
    starts = _switches(dataset)
    if len(starts) <= max(len(steps) - 1, elapsed.shape[1]):
        held = [
            controls[np.searchsorted(times, starts * (1 + _SAME), side="right") - 1]
            for controls, times in rows
        ]
        return np.stack(held), starts
    return np.stack([_means(*row, steps) for row in rows]), steps[:-1]


def _switches(dataset: Dataset) -> NDArray[np.float64]:
    """0 and the elapsed times at which the controls of any trajectory change."""
    changes = (np.diff(dataset.controls, axis=1) != 0).any(axis=2)
    times = np.unique(dataset.elapsed[:, 1:][changes])
    # Differences of equal times are equal up to rounding.
    is_new = np.diff(times, prepend=0.0) > _SAME * times
    return np.append(0.0, times[is_new])


def _means(
    controls: NDArray[np.float64],
    times: NDArray[np.float64],
    edges: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Mean over each interval between edges of what is held from time to time."""
    ends = np.append(times, max(times[-1], edges[-1]))
    sums = np.cumsum(np.diff(ends)[:, None] * controls, axis=0)
    sums = np.concatenate([np.zeros((1, controls.shape[1])), sums])
    widths = edges[1:] - edges[:-1]
    reached = np.stack([np.interp(edges, ends, each) for each in sums.T], axis=1)
    return (reached[1:] - reached[:-1]) / widths[:, None]


def _weights(dataset: Dataset, surrogate: Surrogate, loss: str) -> NDArray[np.float64]:
    weights = _sample_weights(dataset, loss)[:, :, None] * dataset.mask
    if loss == "relative":
        scaling = surrogate.normaliser.states
        largest = np.nanmax(np.abs(dataset.states), axis=(0, 1))
        size = np.abs(dataset.states) + _RELATIVE_FLOOR * largest + 1e-300
        is_linear = np.array([k in ("linear", "max", "none") for k in scaling.kinds])
        # What makes a normalised error relative; a difference of logarithms is already.
        relative = np.asarray(scaling.scale) / np.where(is_linear, size, 1.0)
        weights = np.where(dataset.mask, weights * relative**2, 0.0)
    return weights / weights.sum(axis=(1, 2), keepdims=True)


def _sample_weights(dataset: Dataset, loss: str) -> NDArray[np.float64]:
    """Weights over the samples that are there: a gap belongs to its neighbours."""
    if dataset.present.all():
        return time_weights(dataset.elapsed, loss)
    weights = np.zeros_like(dataset.elapsed)
    for row, present in enumerate(dataset.present):
        elapsed = dataset.elapsed[row : row + 1, present]
        weights[row, present] = time_weights(elapsed, loss)[0]
    return weights


def time_weights(elapsed: NDArray[np.float64], loss: str) -> NDArray[np.float64]:
    """Weights of the samples of each trajectory, ``(trajectory, time)``, not scaled.

    ``dt``: trapezoidal in t, the integral of the paper's (20). ``log_dt``: the same in
    log t, hence uniform on a logarithmic grid, and about 1/t on a linear one; the start
    counts as the first sample after it. ``uniform`` and ``relative``: equal.
    """
    if loss in ("uniform", "relative") or elapsed.shape[1] < 2:
        return np.ones_like(elapsed)
    if loss == "dt":
        gaps = np.diff(elapsed, axis=1) / 2
        return np.pad(gaps, ((0, 0), (0, 1))) + np.pad(gaps, ((0, 0), (1, 0)))
    if elapsed.shape[1] < 3:
        return np.ones_like(elapsed)
    gaps = np.diff(np.log(np.maximum(elapsed[:, 1:], 1e-300)), axis=1)
    # Whole gaps at both ends, where trapezoids have halves: uniform stays uniform.
    before = np.concatenate([gaps[:, :1], gaps], axis=1)
    after = np.concatenate([gaps, gaps[:, -1:]], axis=1)
    inner = (before + after) / 2
    return np.concatenate([inner[:, :1], inner], axis=1)
