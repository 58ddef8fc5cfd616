r"""Operator inference: least squares for ``z' = B [z, u, p, 1] + H (z \otimes z)``.

Derivatives of samples are poor where samples are sparse, so their integrals are used:

.. math:: z_{k+1} - z_k = \sum_j w_j\, \theta(z_{k+j})\, C^T,

``theta`` the features and ``w`` the weights of the polynomial through ``2 m`` samples
around the interval, which for equal intervals are symmetric Adams weights. It is linear
in the coefficients ``C``, so one solution of normal equations finds them.
"""

from typing import NamedTuple

import numpy as np
import scipy.linalg
from numpy.polynomial.legendre import legvander
from numpy.typing import NDArray

from spnode_core.errors import InvalidInput, TrainingError
from spnode_core.nonlinear.quadratic import monomials, pairs
from spnode_core.spec import OperatorInferenceSpec

Values = NDArray[np.float64]

MOST_LATENT = 48
"""Products of more variables than this are too many for normal equations."""
_SAME = 1e-9
# Weights that cancel more than this amplify the error of the samples.
_MOST_CANCELLATION = 3.0


class Operators(NamedTuple):
    """Coefficients of ``z' = affine [z, u, p, 1] + products monomials(z)``."""

    affine: Values
    """``(latent, latent + others + 1)``, 1/time."""
    products: Values
    """``(latent, product)`` for ``z_j z_k, j <= k``, 1/time."""

    @property
    def diagonal(self) -> Values:
        """Rate of each latent variable by itself, 1/time."""
        return np.diag(self.affine[:, : len(self.affine)]).copy()


class Snapshots(NamedTuple):
    """Latent samples of one trajectory, none missing."""

    z: Values
    """``(time, latent)``."""
    times: Values
    """``(time,)``, increasing."""
    others: Values
    """Controls held to the next time, and parameters, ``(time, other)``."""


class _Equations:
    """Normal equations of ``targets = features C^T``, filled part by part."""

    def __init__(self, features: int, targets: int) -> None:
        self.gram = np.zeros((features, features))
        self.right = np.zeros((features, targets))
        self.rows = 0

    def add(self, features: Values, targets: Values) -> None:
        self.gram += features.T @ features
        self.right += features.T @ targets
        self.rows += len(features)

    def solve(self, ridge: float) -> Values:
        """``C``, ``(target, feature)``; see ``ridge_solution``."""
        return ridge_solution(self.gram / self.rows, self.right / self.rows, ridge)


def infer(snapshots: list[Snapshots], spec: OperatorInferenceSpec) -> Operators:
    """The operators that fit the increments of all trajectories best.

    Args:
        snapshots: Trajectories.
        spec: Ridge and number of samples around an interval.

    Raises:
        InvalidInput: Too many latent variables, or trajectories of single samples.
        TrainingError: The least-squares problem is singular.

    Source:
        Peherstorfer & Willcox (2016), Comput. Methods Appl. Mech. Eng. 306, 196-215.
    """
    if not snapshots:
        raise InvalidInput(
            "training.initial",
            found="no two samples of a trajectory beside each other without a gap",
            expected="some, for least squares on increments",
        )
    latent, others = snapshots[0].z.shape[1], snapshots[0].others.shape[1]
    if latent > MOST_LATENT:
        raise InvalidInput(
            "training.initial",
            found=f"{latent} latent variables",
            expected=f"at most {MOST_LATENT} where all their products are fitted",
        )
    equations = _Equations(feature_count(latent, others), latent)
    # What is held between samples makes kinks at them, which no polynomial follows.
    has_kinks = any(len(s.others) and np.ptp(s.others, axis=0).any() for s in snapshots)
    known = np.zeros(0)
    starts, weights = np.zeros(0, np.int64), np.zeros((0, 0))
    for each in snapshots:
        if len(each.times) < 2:
            continue
        relative = each.times - each.times[0]
        if not _equal(relative, known):
            points = 2 if has_kinks else min(spec.points, len(each.times) // 2 * 2)
            known = relative
            starts, weights = interval_weights(relative, points)
        equations.add(*_integrated(each, starts, weights))
    if equations.rows == 0:
        raise InvalidInput(
            "training.initial",
            found="trajectories of single samples",
            expected="at least two samples in a row",
        )
    return as_operators(equations.solve(spec.ridge), latent)


def ridge_solution(gram: Values, right: Values, ridge: float) -> Values:
    """``C`` of ``gram C^T = right``, the ridge on features of unit mean square.

    Args:
        gram: Mean products of features, ``(feature, feature)``.
        right: Their mean products with the targets, ``(feature, target)``.
        ridge: Weight of the squared coefficients.

    Returns:
        ``(target, feature)``.

    Raises:
        TrainingError: The features of the data depend on each other.
    """
    size = np.sqrt(np.maximum(np.diag(gram), 1e-300))
    scaled = gram / np.outer(size, size) + ridge * np.eye(len(size))
    try:
        factor = scipy.linalg.cho_factor(scaled)
    except np.linalg.LinAlgError as error:
        raise TrainingError(
            "operator inference is singular: the data does not tell its terms "
            "apart; raise training.initial.ridge, give more trajectories, or "
            "choose fewer latent variables"
        ) from error
    return (scipy.linalg.cho_solve(factor, right / size[:, None]) / size[:, None]).T


def _equal(times: Values, others: Values) -> bool:
    return times.shape == others.shape and bool(
        np.allclose(times, others, rtol=_SAME, atol=0.0)
    )


def interval_weights(times: Values, points: int) -> tuple[NDArray[np.int64], Values]:
    """Weights that integrate over each interval the polynomial through its neighbours.

    Args:
        times: Increasing, ``(time,)``.
        points: Even number of samples around an interval, at most those there are.

    Returns:
        First sample of each interval's neighbourhood, ``(interval,)``, and the weights,
        ``(interval, points)``; intervals without a full neighbourhood are left out.
        Fewer points are used where the weights would cancel.
    """
    while True:
        starts = np.arange(len(times) - points + 1)
        nodes = times[starts[:, None] + np.arange(points)]
        middle, half = nodes.mean(axis=1), np.ptp(nodes, axis=1) / 2
        first = points // 2 - 1
        ends = nodes[:, first : first + 2]
        scaled = (nodes - middle[:, None]) / half[:, None]
        low, high = ((ends - middle[:, None]) / half[:, None]).T
        vander = legvander(scaled, points - 1).swapaxes(1, 2)
        integral = half[:, None] * (_primitive(high, points) - _primitive(low, points))
        weights = np.linalg.solve(vander, integral[:, :, None])[:, :, 0]
        cancellation = np.abs(weights).sum(axis=1) / (ends[:, 1] - ends[:, 0])
        if points == 2 or cancellation.max() <= _MOST_CANCELLATION:
            return starts, weights
        points -= 2


def _primitive(x: Values, count: int) -> Values:
    """Integrals of the first Legendre polynomials, ``(x, polynomial)``."""
    values = legvander(x, count)
    orders = np.arange(1, count)
    rest = (values[:, 2:] - values[:, :-2]) / (2 * orders + 1)
    return np.concatenate([x[:, None], rest], axis=1)


def _integrated(
    each: Snapshots, starts: NDArray[np.int64], weights: Values
) -> tuple[Values, Values]:
    """Features integrated over the intervals, and the increments."""
    points = weights.shape[1]
    left = starts + points // 2 - 1
    width = (each.times[left + 1] - each.times[left])[:, None]
    latent = each.z.shape[1]
    curved = np.concatenate([each.z, monomials(each.z)], axis=1)
    summed = np.zeros((len(starts), curved.shape[1]))
    for j in range(points):
        summed += weights[:, j, None] * curved[starts + j]
    held = np.concatenate([each.others[left] * width, width], axis=1)
    parts = [summed[:, :latent], held, summed[:, latent:]]
    return np.concatenate(parts, axis=1), each.z[left + 1] - each.z[left]


def feature_count(latent: int, others: int) -> int:
    """Number of features ``[z, u, p, 1, z x z]``."""
    return latent + others + 1 + pairs(latent)


def as_operators(coefficients: Values, latent: int) -> Operators:
    """Coefficients ``(latent, feature)`` as operators."""
    products = pairs(latent)
    return Operators(coefficients[:, :-products], coefficients[:, -products:])


def derivative(operators: Operators, z: Values, others: Values) -> Values:
    """``z'`` of the fitted operators at samples, ``(sample, latent)``, 1/time."""
    ones = np.ones((len(z), 1))
    linear = np.concatenate([z, others, ones], axis=1) @ operators.affine.T
    return linear + monomials(z) @ operators.products.T
