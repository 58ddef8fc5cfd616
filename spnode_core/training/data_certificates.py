"""The certificates that need trajectories: theorem 4 along them, and half steps."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from spnode_core.certificates.along import Along, error_bound, step_refinement
from spnode_core.certificates.members import of_each
from spnode_core.dataset import Dataset
from spnode_core.ensemble import members_of
from spnode_core.samples import problem_on
from spnode_core.surrogate import Surrogate

# More trajectories than this say the same.
_MOST = 200


def data_certificates(
    surrogate: Surrogate,
    parts: dict[str, Dataset],
    metrics: dict[str, dict[str, Any] | None],
) -> dict[str, Any]:
    """What is known of a surrogate's error on held-out trajectories.

    Args:
        surrogate: The trained model.
        parts: Held-out trajectories by name; a part may be empty.
        metrics: What ``evaluate`` measured of each part.
    """
    held_out = {name: part for name, part in parts.items() if part.trajectories}
    measured = {name: metrics[name] for name in held_out}
    along = {name: _along(surrogate, part) for name, part in held_out.items()}
    bounds = [error_bound(one, along) for one in members_of(surrogate)]
    return {
        "error_bound": of_each(bounds) if len(bounds) > 1 else bounds[0],
        "step_refinement": step_refinement({n: m for n, m in measured.items() if m}),
    }


def _along(surrogate: Surrogate, dataset: Dataset) -> Along:
    dataset = dataset.take(np.arange(min(dataset.trajectories, _MOST)))
    problem = problem_on(dataset, surrogate, (surrogate.grid,))
    return Along(
        states=dataset.filled,
        complete=np.asarray(dataset.mask.all(axis=2)),
        parameters=dataset.parameters,
        controls=np.asarray(jnp.asarray(problem.samples.controls)),
        plan=problem.plans[0],
    )
