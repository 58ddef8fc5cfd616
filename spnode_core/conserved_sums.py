"""Linear sums of states that no trajectory of a dataset changes."""

from collections.abc import Iterator

import numpy as np

from spnode_core.dataset import Dataset

# Fields are smooth, so that many combinations of their points hardly change.
_MOST_STATES = 20
# What a sum may change by, relative to what its terms change by.
_KEPT = 1e-6
# Terms and changes of sums that are no more than rounding.
_ROUNDING = 1e-12
# Coefficients this near to a whole number are that number.
_WHOLE = 1e-4
# The largest of them, and of the largest term.
_LARGEST_WHOLE, _LARGEST_OWN = 100, 24
# However small its term, a coefficient is no whole number that is as far from it.
_VAGUE = 0.25
# What a sum without whole numbers may change by, relative to the least of its terms.
_SURE = 1e-4


def conserved_sums(dataset: Dataset) -> list[dict[str, float]]:
    """Independent sums ``c . x`` that no trajectory changes, by name of state.

    The null space of the changes since the first sample, each state in units of its
    largest change, in reduced row-echelon form. States that never move are left out,
    and sums that the dataset names already; what a state adds to a sum must be more
    than rounding. With more states than a few, or with fewer than two changes for each,
    nothing is looked for: smooth fields have many that hardly change.

    Returns:
        Coefficients of each sum: whole numbers where these hold as well, else such as
        hold to far less than the least term moves.
    """
    later = dataset.mask.all(axis=2) & (np.arange(dataset.times.shape[1]) > 0)
    changes = (dataset.states - dataset.states[:, :1])[later]
    spread = np.abs(changes).max(axis=0, initial=0.0)
    moving = np.flatnonzero(spread > 0)
    count = len(moving)
    if not 2 <= count <= _MOST_STATES:
        return []
    if not _are_many(changes, 2 * count):
        return []
    names = [dataset.names[index] for index in moving]
    given = [
        np.array([sums.get(name, 0.0) for name in names])
        for sums in dataset.conserved.values()
    ]
    found = []
    # Of numbers however large and small: what is not finite is no sum.
    with np.errstate(all="ignore"):
        for row in _sums(changes[:, moving], spread[moving]):
            if not _spans([*given, *found], row):
                found.append(row)
    found.sort(key=lambda row: int(np.flatnonzero(row)[0]))
    return [
        {n: float(c) for n, c in zip(names, row, strict=True) if c} for row in found
    ]


def _are_many(changes: np.ndarray, least: int) -> bool:
    """Whether there are so many that differ: repeated ones tell nothing more."""
    seen: set[bytes] = set()
    for row in changes:
        seen.add(row.tobytes())
        if len(seen) >= least:
            return True
    return False


def _sums(changes: np.ndarray, spread: np.ndarray) -> list[np.ndarray]:
    """Sums that hold, first those to rounding: what nearly holds would blend in."""
    _, sizes, directions = np.linalg.svd(changes / spread, full_matrices=False)
    found = []
    for tolerance in (_ROUNDING, _KEPT):
        null = directions[sizes <= tolerance * sizes[0]]
        for row in _echelon(null / spread, spread):
            clean = _cleaned(row, changes, spread)
            if clean is not None:
                found.append(clean)
    return found


def _cleaned(
    row: np.ndarray, changes: np.ndarray, spread: np.ndarray
) -> np.ndarray | None:
    """The plain sum that a null direction stands for, None where there is none."""
    terms = np.abs(row) * spread
    if not np.isfinite([row, terms]).all():
        return None  # the changes of one are as nothing beside those of another
    counts = terms > _KEPT * terms.max()
    # Not much worse than the best numbers, which follow the noise too.
    allowed = max(10 * _change(row, changes, spread), _ROUNDING)
    for whole in _whole(row, counts, spread):
        if _change(whole, changes, spread) <= min(allowed, _KEPT):
            return whole
    row = np.where(counts, row, 0.0)
    least = terms[counts].min() / terms.max()
    if np.count_nonzero(row) < 2 or _change(row, changes, spread) > _SURE * least:
        return None
    return row / row[counts][0]


def _change(row: np.ndarray, changes: np.ndarray, spread: np.ndarray) -> float:
    """How far a sum changes, relative to the largest change of a term."""
    return float(np.abs(changes @ row).max() / (np.abs(row) * spread).max())


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
    return rows


def _whole(
    row: np.ndarray, counts: np.ndarray, spread: np.ndarray
) -> Iterator[np.ndarray]:
    """The same sum in small whole numbers, where it has such, the plainest first.

    Args:
        row: Its coefficients.
        counts: Where a term is large enough to tell that it is there.
        spread: Largest change of each state.
    """
    terms = np.abs(row) * spread
    # A coefficient is known as well as its term stands out.
    unsure = np.clip(_KEPT * terms.max() / terms, _WHOLE, _VAGUE)
    largest = terms.argmax()  # whose coefficient is known best
    for own in range(1, _LARGEST_OWN + 1):
        scaled = row / row[largest] * own
        whole = np.round(scaled)
        off = np.abs(scaled - whole) / np.maximum(np.abs(whole), 1)
        is_near = (off <= np.where(counts, unsure, _WHOLE)) & (whole != 0)
        is_near &= np.abs(whole) <= _LARGEST_WHOLE
        if is_near[counts].all():
            whole = whole * np.sign(whole[counts][0])
            yield np.where(counts, whole, 0.0)
            yield np.where(is_near, whole, 0.0)
            return


def _spans(given: list[np.ndarray], row: np.ndarray) -> bool:
    """Whether a sum is a combination of given ones."""
    if not given:
        return False
    basis = np.array(given).T
    solution, *_ = np.linalg.lstsq(basis, row, rcond=None)
    return bool(np.allclose(basis @ solution, row, atol=_WHOLE))
