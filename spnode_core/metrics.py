"""How far a surrogate is from a dataset, state by state, and from itself at half steps.

Errors are scaled by the largest modulus of each state over the training data, so that
``scaled_mse`` adds up states of any unit; and *normalised* by how much each state
varies, so that they can be compared with those of trivial models (``deviations``).
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from spnode_core.baselines import Baselines, measuring, normalised, sizes
from spnode_core.dataset import Dataset
from spnode_core.deviations import Deviations, spread
from spnode_core.intervals import calibrated, measured_coverage
from spnode_core.normaliser import Scaling
from spnode_core.restarts import restarts
from spnode_core.rollout import rollout
from spnode_core.samples import Problem, problem_on
from spnode_core.surrogate import Surrogate
from spnode_core.timegrid import Plan, TimeGrid
from spnode_core.timing import timing_errors
from spnode_core.verdict import warnings_of

_ROWS_AT_ONCE = 64
# Numbers in the matrices of rows that have output times of their own, about.
_MOST_MATRIX_VALUES = 20_000_000
_BY_JACOBIAN = ("rodas4", "exprb32")
Values = NDArray[np.float64]


def evaluate(
    surrogate: Surrogate,
    dataset: Dataset,
    training: Dataset | None = None,
    *,
    seed: int | None = None,
) -> dict[str, Any]:
    """Compare rollouts from the first sample of each trajectory with all of it.

    Args:
        surrogate: The model.
        dataset: Trajectories with the states, parameters and controls of the model.
        training: What the surrogate learned from, for the comparison with trivial
            models and for warnings; they say something only where ``dataset`` was held
            out. None leaves them out.
        seed: Source of later samples to start rollouts from, which costs one more
            compilation. None leaves them out.

    Returns:
        ``scaled_mse`` (mean over trajectories, times and states of the squared scaled
        error; the paper's, so with the starts, which are given), the same for each
        state. Everything else is of samples after the start, and for each state only
        where it has such: its RMSE in physical units, relative L2 error and largest
        scaled error; ``refined_scaled_mse`` (with every step halved)
        and ``refinement_error``, the largest scaled change that halving makes.

        ``normalised_rmse``, in all, by state, ``over_time`` and ``over_trajectories``:
        the error over the standard deviation of the state in the dataset, in the
        logarithm where the state was learned so; ``start``: that of the first samples,
        which rollouts are given and the others leave out. ``baselines`` are the same
        errors of trivial models, ``mid_trajectory`` those of rollouts from later
        samples, beside those from the start at the same samples; ``warnings`` are
        sentences. ``timing`` says how wrong the times of events are. ``intervals`` is
        the measured coverage of prediction intervals, where the surrogate has them: of
        those that came from other trajectories.
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
    compared = Compared.of(surrogate, dataset)
    states = normalised(compared.scaling, coarse)
    found = compared.with_states(states)
    by_state = found.by_state
    metrics: dict[str, Any] = {
        "scaled_mse": float(np.sum((error / scale) ** 2) / count),
        "refined_scaled_mse": float(np.sum((refined / scale) ** 2) / count),
        "refinement_error": float(change.max()),
        "normalised_rmse": found.overall,
        "states": {
            name: {
                **_state_metrics(error[:, :, i], dataset, i, float(scale[i])),
                **({"normalised_rmse": by_state[name]} if name in by_state else {}),
            }
            for i, name in enumerate(dataset.names)
        },
        "worst_state": found.worst_state,
        "over_time": found.over_time(grid.bins(surrogate.signature.domain.end)),
        "over_trajectories": found.over_trajectories(),
        "start": _brief(compared.at_start(states)),
        "timing": timing_errors(coarse, dataset),
        "trajectories": dataset.trajectories,
        "samples": count,
    }
    if (intervals := surrogate.signature.intervals) is not None:
        metrics["intervals"] = measured_coverage(
            intervals, coarse, dataset.states, mask, dataset.elapsed
        )
    if seed is not None:
        metrics["mid_trajectory"] = _from_later_samples(compared, found, seed)
    if training is not None:
        normaliser = dataclasses.replace(surrogate.normaliser, states=compared.scaling)
        trivial = Baselines(normaliser, grid, training).predict(dataset)
        metrics["baselines"] = {
            name: _brief(compared.with_states(states))
            for name, states in trivial.items()
        }
        metrics["warnings"] = warnings_of(metrics)
    return metrics


def with_intervals(surrogate: Surrogate, dataset: Dataset) -> Surrogate:
    """The surrogate with prediction intervals from trajectories it was not trained on.

    Args:
        surrogate: The model.
        dataset: Trajectories that were held out; where they are too few for any
            interval, or there are none, it is left without.
    """
    intervals = None
    if dataset.trajectories:
        scaling = surrogate.normaliser.states
        intervals = calibrated(
            predict(surrogate, dataset, surrogate.grid),
            dataset.states,
            dataset.mask,
            dataset.elapsed,
            edges=surrogate.grid.bins(surrogate.signature.domain.end),
            kinds=scaling.kinds,
            widths=np.asarray(scaling.width),
            positive=surrogate.spec.positive,
        )
    signature = surrogate.signature.model_copy(update={"intervals": intervals})
    return dataclasses.replace(surrogate, signature=signature)


def _bare(surrogate: Surrogate) -> Surrogate:
    signature = surrogate.signature
    domain = signature.domain.model_copy(update={"neighbours": 0})
    signature = signature.model_copy(update={"intervals": None, "domain": domain})
    return dataclasses.replace(surrogate, signature=signature, neighbours=None)


@dataclasses.dataclass(frozen=True)
class Compared:
    """A dataset that predictions are compared with, in normalised states."""

    surrogate: Surrogate
    dataset: Dataset
    scaling: Scaling
    states: Values
    spread: Values

    @classmethod
    def of(cls, surrogate: Surrogate, dataset: Dataset) -> "Compared":
        """The dataset in what a surrogate has learned its states in."""
        scaling = measuring(surrogate.normaliser.states, dataset)
        states = normalised(scaling, dataset.filled)
        deviations = spread(states, dataset.mask, sizes(scaling, dataset))
        return cls(surrogate, dataset, scaling, states, deviations)

    def with_states(self, predicted: Values) -> Deviations:
        """Deviations of normalised states from those of the dataset."""
        return self._deviations(self.dataset, predicted - self.states)

    def at_start(self, predicted: Values) -> Deviations:
        """Deviations of normalised states from those that the rollouts were given."""
        found = self.with_states(predicted)
        mask = self.dataset.mask & ~self.dataset.later
        errors = np.where(mask, (predicted - self.states) / self.spread, 0.0)
        return dataclasses.replace(found, errors=errors, mask=mask)

    def with_rests(self, rests: Dataset) -> Deviations:
        """Deviations of rollouts from the first samples of pieces of the dataset."""
        predicted = predict(self.surrogate, rests, self.surrogate.grid)
        truth = normalised(self.scaling, rests.filled)
        errors = normalised(self.scaling, predicted) - truth
        return self._deviations(rests, errors)

    def _deviations(self, dataset: Dataset, errors: Values) -> Deviations:
        mask = dataset.later
        errors = np.where(mask, errors / self.spread, 0.0)
        return Deviations(dataset.names, errors, mask, dataset.elapsed)


def _brief(found: Deviations) -> dict[str, Any]:
    return {"normalised_rmse": found.overall, "states": found.by_state}


def _from_later_samples(
    compared: Compared, usual: Deviations, seed: int
) -> dict[str, Any] | None:
    """Errors of rollouts from later samples, and those from the start, side by side."""
    pieces = restarts(compared.dataset, seed)
    if pieces is None:
        return None
    found = compared.with_rests(pieces.dataset)
    at = pieces.rows[:, None], pieces.samples
    same = dataclasses.replace(found, errors=usual.errors[at])
    return {
        **_brief(found),
        "from_start": same.overall,
        "trajectories": len(pieces.rows),
        "samples": int(found.mask.sum()),
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
    # What is kept for intervals and domain changes no rollout: one program for all.
    surrogate = _bare(surrogate)
    problem = problem_on(dataset, surrogate, (grid,))
    total = dataset.trajectories
    rows = min(total, _rows_at_once(surrogate, problem.plans[0]))
    parts = []
    for start in range(0, total, rows):
        # The last part repeats rows, so that every part has one shape.
        index = np.minimum(np.arange(start, start + rows), total - 1)
        parts.append(np.asarray(_rollout(surrogate, problem.rows(jnp.asarray(index)))))
    return np.concatenate(parts)[:total]


def _rows_at_once(surrogate: Surrogate, plan: Plan) -> int:
    """Rows of one call; fewer where each has matrices of its own for output times."""
    # Propagators of a shared time are shared, but not Jacobians along trajectories.
    has_own = plan.output_index.ndim > 1 or surrogate.spec.integrator in _BY_JACOBIAN
    if plan.on_grid or not has_own:
        return _ROWS_AT_ONCE
    per_row = plan.outputs * surrogate.signature.latent**2
    return max(1, min(_ROWS_AT_ONCE, _MOST_MATRIX_VALUES // per_row))


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
    mask = dataset.later[:, :, index]
    truth = dataset.states[:, :, index][mask]
    wrong = error[mask]
    scaled = error[dataset.mask[:, :, index]] / scale
    found = {"scaled_mse": float(np.mean(scaled**2))}
    if not wrong.size:
        return found
    size = float(np.sqrt(np.sum(truth**2)))
    return {
        **found,
        "rmse": float(np.sqrt(np.mean(wrong**2))),
        "relative_l2": float(np.sqrt(np.sum(wrong**2)) / size) if size else 0.0,
        "max_abs_scaled": float(np.abs(wrong).max() / scale),
    }
