"""Linear sums of states that no trajectory of a dataset changes."""

import numpy as np

from spnode_core.dataset import Dataset

# Fields are smooth, so that many combinations of their points hardly change.
_MOST_STATES = 20
# What a sum may change by, relative to what its terms change by.
_KEPT = 1e-6
# Coefficients this near to a whole number are that number.
_WHOLE = 1e-4


def conserved_sums(dataset: Dataset) -> list[dict[str, float]]:
    """Independent sums ``c . x`` that no trajectory changes, by name of state.

    The null space of the changes since the first sample, each state in units of its
    largest change, in reduced row-echelon form. States that never move are left out,
    and sums that the dataset names already. With more states than
    a few nothing is looked for: smooth fields have many that hardly change.

    Returns:
        Coefficients of each sum, whole numbers where it has such.
    """
    whole = dataset.mask.all(axis=2)
    changes = (dataset.states - dataset.states[:, :1])[whole]
    spread = np.abs(changes).max(axis=0)
    moving = np.flatnonzero(spread > 0)
    count = len(moving)
    if not 2 <= count <= _MOST_STATES or len(changes) < 2 * count:
        return []
    scaled = changes[:, moving] / spread[moving]
    _, sizes, directions = np.linalg.svd(scaled, full_matrices=False)
    null = directions[sizes <= _KEPT * sizes[0]]
    found = []
    with np.errstate(all="ignore"):
        rows = _echelon(null / spread[moving], spread[moving])
    for each in rows:
        with np.errstate(all="ignore"):
            row = _rounded(each)
            terms = np.abs(row) * spread[moving]
        if not np.isfinite([row, terms]).all():
            continue  # the changes of one are as nothing beside those of another
        if np.abs(changes[:, moving] @ row).max() <= _KEPT * terms.max():
            found.append(row)
    found.sort(key=lambda row: int(np.flatnonzero(row)[0]))
    names = [dataset.names[index] for index in moving]
    given = [
        np.array([sums.get(name, 0.0) for name in names])
        for sums in dataset.conserved.values()
    ]
    return [
        {n: float(c) for n, c in zip(names, row, strict=True) if c}
        for row in found
        if not _spans(given, row)
    ]


def _echelon(rows: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Reduced row-echelon form of independent rows, by the pivots that weigh most."""
    rows = rows.copy()
    left = list(range(rows.shape[1]))
    for place in range(len(rows)):
        pivot = max(left, key=lambda column: abs(rows[place, column]) * spread[column])
        left.remove(pivot)
        rows[place] /= rows[place, pivot]
        for other in range(len(rows)):
            if other != place:
                rows[other] -= rows[other, pivot] * rows[place]
    # Rounding leaves traces of what is not in a sum.
    return np.where(np.abs(rows) < _WHOLE, 0.0, rows)


def _rounded(row: np.ndarray) -> np.ndarray:
    """The same sum in whole numbers where that is possible, else from 1 on."""
    first, *_ = given = row[row != 0]
    scaled = row / np.abs(given).min() * np.sign(first)
    whole = np.round(scaled)
    if (np.abs(scaled - whole) <= _WHOLE * np.maximum(np.abs(whole), 1)).all():
        return whole
    return row / first


def _spans(given: list[np.ndarray], row: np.ndarray) -> bool:
    """Whether a sum is a combination of given ones."""
    if not given:
        return False
    basis = np.array(given).T
    solution, *_ = np.linalg.lstsq(basis, row, rcond=None)
    return bool(np.allclose(basis @ solution, row, atol=_WHOLE))
