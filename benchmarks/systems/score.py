"""How far rollouts are from unseen trajectories, state by state."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spnode_core.dataset import Dataset
from spnode_core.metrics import predict
from spnode_core.surrogate import Surrogate
from spnode_core.timing import timing_errors

Values = NDArray[np.float64]


def normalised_errors(
    predicted: Values, dataset: Dataset, kinds: tuple[str, ...]
) -> dict[str, float]:
    """RMSE over the standard deviation of what is compared, for each state.

    Args:
        predicted: Rollouts at the times of the dataset.
        dataset: The truth.
        kinds: How each state is normalised; errors of ``log`` are of logarithms.
    """
    found = {}
    mask = dataset.mask & (np.arange(dataset.mask.shape[1]) > 0)[None, :, None]
    for i, name in enumerate(dataset.names):
        truth, ours = (a[:, :, i][mask[:, :, i]] for a in (dataset.states, predicted))
        if kinds[i] == "log":
            floor = truth[truth > 0].min() if (truth > 0).any() else 1e-300
            truth, ours = (np.log(np.maximum(a, 0.1 * floor)) for a in (truth, ours))
        spread = max(float(truth.std()), 1e-300)
        found[name] = float(np.sqrt(np.mean((ours - truth) ** 2))) / spread
    return found


def worst_errors(surrogate: Surrogate, unseen: dict[str, Dataset]) -> dict[str, Any]:
    """The worst state's error on each set of unseen trajectories, and its name."""
    kinds = surrogate.normaliser.states.kinds
    found = {}
    for kind, dataset in unseen.items():
        predicted = predict(surrogate, dataset, surrogate.grid)
        errors = normalised_errors(predicted, dataset, kinds)
        state = max(errors, key=lambda name: errors[name])
        found[kind] = {
            "state": state,
            "error": errors[state],
            "states": errors,
            "timing": timing_errors(predicted, dataset),
        }
    return found
