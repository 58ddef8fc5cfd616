r"""Linear sums of states that no trajectory changes, kept exactly by a polynomial.

With ``c z`` constant, ``c C = 0`` for the coefficients of ``z' = C w^alpha``: the rows
of some states follow from those of the others, ``C = B F``. Runge-Kutta and Rosenbrock
steps then keep the sum up to rounding. What is left when all has reacted may hang on
it: of two radicals that vanish together the difference decides how they do.
"""

import numpy as np
from numpy.typing import NDArray

from spnode_core.conserved_sums import conserved_sums
from spnode_core.dataset import Dataset
from spnode_core.surrogate import Surrogate
from spnode_core.training.operator_inference import Snapshots

Values = NDArray[np.float64]

_KEPT, _SAME, _TINY = 1e-4, 1e-6, 1e-3


def kept_sums(surrogate: Surrogate, dataset: Dataset) -> Values:
    """Sums of the latent variables that no trajectory changes, ``(sum, latent)``.

    None where these are no multiples of the states.
    """
    names, scaling = dataset.names, surrogate.normaliser.states
    is_plain = surrogate.spec.autoencoder.kind == "none"
    is_linear = {"linear", "max", "none"} >= set(scaling.kinds)
    if not (is_plain and is_linear):
        return np.zeros((0, surrogate.signature.latent))
    asked = [*dataset.conserved.values(), *conserved_sums(dataset)]
    rows = [[terms.get(name, 0.0) for name in names] for terms in asked]
    sums = np.array(rows).reshape(len(rows), len(names))
    changes = (dataset.states - dataset.states[:, :1])[dataset.mask.all(axis=2)]
    ranges = np.abs(changes).max(axis=0)
    held = [_holds(row, changes, ranges) for row in sums]
    return _independent(sums[held] * np.asarray(scaling.scale))


def _holds(row: Values, changes: Values, ranges: Values) -> bool:
    """Whether a sum is kept to far less than the least of its terms moves.

    Else its coefficients are not known as well as a fit would tell them.
    """
    terms = np.abs(row[row != 0]) * ranges[row != 0]
    return bool(np.abs(changes @ row).max() <= _KEPT * terms.min())


def _independent(sums: Values) -> Values:
    """Those that do not follow from the ones before them."""
    kept: list[Values] = []
    for row in sums:
        unit = row / np.abs(row).max()
        if np.linalg.matrix_rank(np.array([*kept, unit]), tol=_SAME) > len(kept):
            kept.append(unit)
    return np.array(kept).reshape(len(kept), sums.shape[1])


def elimination(sums: Values, snapshots: list[Snapshots]) -> tuple[Values, list[int]]:
    """``B`` of ``C = B F``, ``(latent, free)``, and which rows are those of ``F``.

    The fastest state of a sum follows from the others: its slope is a small difference
    of large ones where fast reactions are in balance.

    Args:
        sums: Independent ones, ``(sum, latent)``.
        snapshots: Samples, which tell how fast states move.
    """
    rows, latent = sums.copy(), sums.shape[1]
    speeds = np.max(
        [
            np.abs(np.diff(s.z, axis=0) / np.diff(s.times)[:, None]).max(0)
            for s in snapshots
        ],
        axis=0,
    )
    pivots: dict[int, int] = {}
    for number, row in enumerate(rows):
        sizes = np.abs(row)
        sizes[list(pivots.values())] = 0.0
        # A tiny one would make the others' coefficients huge.
        weights = np.where(sizes >= _TINY * sizes.max(), speeds, -1.0)
        pivot = int(np.argmax(weights))
        row /= row[pivot]
        others = np.arange(len(rows)) != number
        rows[others] -= np.outer(rows[others, pivot], row)
        pivots[number] = pivot
    free = [i for i in range(latent) if i not in pivots.values()]
    basis = np.eye(latent)[:, free]
    for number, pivot in pivots.items():
        basis[pivot] = -rows[number, free]
    return basis, free
