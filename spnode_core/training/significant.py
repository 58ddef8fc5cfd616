"""Which unknowns of a least-squares fit the data tell from 0."""

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

SINGULAR = 1e-13
"""Of the largest eigenvalue: below it nothing is told."""
_UNDERFLOW = 1e-200


def scaled_gram(gram: Values) -> tuple[Values, Values]:
    """A scale for each unknown, and the matrix with ones on its diagonal.

    Unknowns of which nothing is told but by underflow are told apart from the others.
    """
    diagonal = np.diag(gram)
    is_told = diagonal > _UNDERFLOW * diagonal.max(initial=0.0)
    scale = np.sqrt(np.where(is_told, diagonal, 1.0))
    both = is_told[:, None] & is_told
    scaled = np.where(both, gram, 0.0) / scale[:, None] / scale
    return np.where(is_told, scale, np.inf), scaled + np.diag(~is_told * 1.0)


def without_noise(coefficients: Values, gram: Values, allowed: float) -> Values:
    """Coefficients with the least telling ones 0, the others fitted again.

    One after another that whose absence costs least is left out, by the quadratic model
    of the loss, until all together would cost more than is allowed.

    Args:
        coefficients: Where the loss is least.
        gram: Normal equations there.
        allowed: What the sum of squared residuals may grow by.
    """
    scale, scaled = scaled_gram(gram)
    values, vectors = np.linalg.eigh(scaled)
    inverse = (vectors / np.maximum(values, SINGULAR * values[-1])) @ vectors.T
    active = np.isfinite(scale)
    scale = np.where(active, scale, 1.0)
    kept = np.where(active, coefficients, 0.0) * scale
    spent = 0.0
    for _ in range(active.sum() - 1):
        own = np.where(active, np.maximum(np.diag(inverse), 1e-300), 1.0)
        cost = np.where(active, kept**2 / own, np.inf)
        least = int(np.argmin(cost))
        spent += cost[least]
        if spent > allowed:
            break
        column = inverse[:, least] / own[least]
        kept = kept - column * kept[least]
        inverse = inverse - np.outer(column, inverse[least])
        active[least] = False
        kept[~active] = 0.0
    return kept / scale
