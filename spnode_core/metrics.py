"""How far a surrogate is from a dataset, state by state, and from itself at half steps.

Errors are scaled by the largest modulus of each state over the training data, so that
``scaled_mse`` adds up states of any unit.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from spnode_core.dataset import Dataset
from spnode_core.rollout import rollout
from spnode_core.samples import Problem, problem_on
from spnode_core.surrogate import Surrogate
from spnode_core.timegrid import TimeGrid

_ROWS_AT_ONCE = 64
Values = NDArray[np.float64]


def evaluate(surrogate: Surrogate, dataset: Dataset) -> dict[str, Any]:
    """Compare rollouts from the first sample of each trajectory with all of it.

    Args:
        surrogate: The model.
        dataset: Trajectories with the states, parameters and controls of the model.

    Returns:
        ``scaled_mse`` (mean over trajectories, times and states of the squared scaled
        error), the same for each state with its RMSE in physical units, relative L2
        error and largest scaled error, ``refined_scaled_mse`` (with every step halved)
        and ``refinement_error``, the largest scaled change that halving makes.
    """
    grid = surrogate.grid
    coarse = predict(surrogate, dataset, grid)
    fine = predict(surrogate, dataset, grid.refined(2))
    scale = state_scale(surrogate)
    mask = dataset.mask
    error = np.where(mask, coarse - dataset.states, 0.0)
    refined = np.where(mask, fine - dataset.states, 0.0)
    change = np.where(mask, np.abs(fine - coarse), 0.0) / scale
    count = int(mask.sum())
    return {
        "scaled_mse": float(np.sum((error / scale) ** 2) / count),
        "refined_scaled_mse": float(np.sum((refined / scale) ** 2) / count),
        "refinement_error": float(change.max()),
        "states": {
            name: _state_metrics(error[:, :, i], dataset, i, float(scale[i]))
            for i, name in enumerate(dataset.names)
        },
        "trajectories": dataset.trajectories,
        "samples": count,
    }


def state_scale(surrogate: Surrogate) -> Values:
    """Largest modulus of each state over the training data, physical units."""
    domain = surrogate.signature.domain
    largest = np.maximum(np.abs(domain.lower), np.abs(domain.upper))
    return np.where(largest > 0, largest, 1.0)


def predict(surrogate: Surrogate, dataset: Dataset, grid: TimeGrid) -> Values:
    """Rollouts at the times of a dataset, ``(trajectory, time, state)``.

    Args:
        surrogate: The model.
        dataset: Gives first samples, times, parameters and controls.
        grid: The steps to take, that of the model or a refinement.
    """
    problem = problem_on(dataset, surrogate, (grid,))
    total = dataset.trajectories
    rows = min(total, _ROWS_AT_ONCE)
    parts = []
    for start in range(0, total, rows):
        # The last part repeats rows, so that every part has one shape.
        index = np.minimum(np.arange(start, start + rows), total - 1)
        parts.append(np.asarray(_rollout(surrogate, problem.rows(jnp.asarray(index)))))
    return np.concatenate(parts)[:total]


@eqx.filter_jit
def _rollout(
    surrogate: Surrogate, problem: Problem
) -> Float[Array, "batch time state"]:
    samples = problem.samples
    return rollout(
        surrogate, samples.x0, problem.plans[0], samples.parameters, samples.controls
    )


def _state_metrics(
    error: Values, dataset: Dataset, index: int, scale: float
) -> dict[str, float]:
    mask = dataset.mask[:, :, index]
    truth = dataset.states[:, :, index][mask]
    wrong = error[mask]
    size = float(np.sqrt(np.sum(truth**2)))
    return {
        "rmse": float(np.sqrt(np.mean(wrong**2))),
        "scaled_mse": float(np.mean((wrong / scale) ** 2)),
        "relative_l2": float(np.sqrt(np.sum(wrong**2)) / size) if size else 0.0,
        "max_abs_scaled": float(np.abs(wrong).max() / scale),
    }
