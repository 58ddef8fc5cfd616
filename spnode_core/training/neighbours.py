"""Which training samples a surrogate keeps, to know later what is far from them all."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from spnode_core.dataset import Dataset
from spnode_core.ensemble import ensemble_of, members_of
from spnode_core.neighbours import Neighbours
from spnode_core.surrogate import Surrogate

# Samples that are kept, numbers in them, and samples that distances are tried on.
_MOST_POINTS = 512
_MOST_VALUES = 65_536
_MOST_QUERIES = 1024
# Rollouts begin at starts most often, so a quarter of the samples are such.
_STARTS = 4
# The distance that is usual: this quantile of those between trajectories, and more.
_QUANTILE = 0.99
_MARGIN = 1.25
# A latent variable that hardly varies is not blown up beyond this.
_LEAST_DEVIATION = 1e-3


def with_neighbours(surrogate: Surrogate, dataset: Dataset, seed: int) -> Surrogate:
    """The surrogate with some of its training samples, encoded.

    Distances are scaled by those from samples of one trajectory to those of others, the
    larger of starts and of all samples: what a new trajectory may have.

    Args:
        surrogate: A trained surrogate.
        dataset: What it was trained on.
        seed: Source of the choice of samples.
    """
    if surrogate.signature.members > 1:
        each = members_of(surrogate)
        return ensemble_of([with_neighbours(one, dataset, seed) for one in each])
    latent = surrogate.signature.latent
    count = max(2, min(_MOST_POINTS, _MOST_VALUES // latent))
    row, column = np.nonzero(dataset.mask.all(axis=2))
    order = np.random.default_rng([seed, 31]).permutation(len(row))
    starts, later = order[column[order] == 0], order[column[order] > 0]
    first = starts[: count // _STARTS]
    points = np.concatenate([first, later[: count - len(first)]])
    few = _MOST_QUERIES // 2
    tried_starts, tried = starts[:few], later[::-1][:few]
    z = {
        name: _encoded(surrogate, dataset, row[index], column[index])
        for name, index in (("points", points), ("starts", tried_starts), ("z", tried))
    }
    deviation = np.concatenate([*z.values()]).std(axis=0)
    largest = float(deviation.max()) or 1.0
    deviation = np.maximum(deviation, _LEAST_DEVIATION * largest)
    usual = max(
        _usual(z[name] / deviation, z["points"] / deviation, index, points, row)
        for name, index in (("starts", tried_starts), ("z", tried))
        if len(index)
    )
    # Where all trajectories are the same one nothing is known of what is usual.
    usual = usual or _MARGIN
    scale = 1 / (deviation * usual)
    found = Neighbours.of(jnp.asarray(z["points"]), jnp.asarray(scale))
    signature = surrogate.signature
    domain = signature.domain.model_copy(update={"neighbours": len(points)})
    signature = signature.model_copy(update={"domain": domain})
    return dataclasses.replace(surrogate, signature=signature, neighbours=found)


def _usual(
    queries: NDArray[np.float64],
    points: NDArray[np.float64],
    asked: NDArray[np.intp],
    kept: NDArray[np.intp],
    row: NDArray[np.intp],
) -> float:
    """The most that is usual from samples to those of other trajectories."""
    # SciPy loads here alone, as elsewhere.
    from scipy.spatial.distance import cdist

    same = row[asked][:, None] == row[kept]
    if same.all():
        # One trajectory alone: any other sample of it.
        same = asked[:, None] == kept
    distances = np.where(same, np.inf, cdist(queries, points)).min(axis=1)
    distances = distances[np.isfinite(distances)]
    usual = float(np.quantile(distances, _QUANTILE)) if len(distances) else 1.0
    return _MARGIN * usual


def _encoded(
    surrogate: Surrogate,
    dataset: Dataset,
    row: NDArray[np.intp],
    column: NDArray[np.intp],
) -> NDArray[np.float64]:
    parameters = dataset.parameters.reshape(dataset.trajectories, -1)[row]
    states = jnp.asarray(dataset.states[row, column])
    return np.asarray(_encode(surrogate, states, jnp.asarray(parameters)))


@eqx.filter_jit
def _encode(
    surrogate: Surrogate,
    states: Float[Array, "sample state"],
    parameters: Float[Array, "sample parameter"],
) -> Float[Array, "sample latent"]:
    return jax.vmap(surrogate.encode)(states, parameters)
