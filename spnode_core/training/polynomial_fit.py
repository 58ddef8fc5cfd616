r"""Polynomial dynamics from samples, for systems however stiff.

Coefficients ``C`` of ``z' = C w^alpha`` are first regressed on increments, then fitted
by Gauss-Newton rounds to what the model itself makes of each sample: with the end
``zh`` of an interval that starts at a sample and the path's own sensitivities

.. math:: z_{k+1} - \hat z_{k+1} = \int_0^\Delta \Phi(\Delta, s)\, \delta C\,
   w^\alpha(\hat z(s))\, ds, \qquad \Phi' = F'(\hat z) \Phi.

Long intervals of a stiff system amplify the smallest error of a rate, so the rounds
begin with the shortest intervals and take in longer ones as the model allows, and
after each stage leave out the coefficients that its intervals do not tell from 0.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from spnode_core.deviations import or_size
from spnode_core.errors import TrainingError
from spnode_core.nonlinear.polynomial import factors
from spnode_core.training.one_step import (
    CHUNK,
    Normal,
    Pairs,
    ends_of,
    equations,
    interval_pairs,
    is_near,
    robust_loss,
)
from spnode_core.training.operator_inference import Snapshots

Values = NDArray[np.float64]

MOST_PAIRS = 4000
"""Intervals of a round; more cost time and gain nothing."""
SUBSTEPS = (4, 16)
"""Steps of the integrator in an interval: the fewest, and the most where its own error
shows; they double."""
_ROUNDS, _TRIALS, _MOST_ROUNDS = 8, 6, 50
# The first stage has intervals up to so many times the shortest, then ten times more.
_FIRST_STAGE, _GROWTH, _SLOWEST_GROWTH = 30.0, 10.0, 2.0
_FEWEST = 1 / 8
_NOT_GOOD = 0.02
_LOST = 0.3
_COLLAPSED = 0.01
_GAIN = 0.9
_EXACT = 1e-14
# Leaving coefficients out may cost so much of the loss.
_SIGNIFICANT = 4.0
_INTEGRATOR_ERROR = 1e-4
_SINGULAR = 1e-13


@dataclasses.dataclass(frozen=True)
class PolynomialFit:
    """A fitted polynomial.

    Args:
        coefficients: ``(latent, term)``, 1/time.
        residual: Root mean square of the one-step errors, in standard deviations.
        substeps: Steps of RODAS4 between two samples that it was fitted with.
    """

    coefficients: Values
    residual: float
    substeps: int


def fit_polynomial(
    snapshots: list[Snapshots],
    degree: int,
    seed: int,
    report: Callable[[str], None] = lambda _: None,
    *,
    first: Values | None = None,
) -> PolynomialFit:
    """The polynomial whose steps from sample to sample err least.

    Args:
        snapshots: Latent samples of each trajectory.
        degree: Of the products of latent variables, controls and parameters.
        seed: Source of the choice among many intervals.
        report: Is told what is being done, and may raise to stop.
        first: Coefficients that the rounds begin with, ``(latent, term)``; those of
            least squares where None.

    Raises:
        TrainingError: The errors of single steps do not collapse: the system is no
            such polynomial, or its samples are too coarse for it.
    """
    snapshots = [each for each in snapshots if len(each.times) > 1]
    if not snapshots:
        raise TrainingError("no two samples of a trajectory lie beside each other")
    pairs = interval_pairs(snapshots)
    fitting = _Fitting(degree, spread_of(snapshots), seed, report)
    if first is None:
        report(f"least squares for a polynomial of degree {degree}")
    substeps = SUBSTEPS[0]
    try:
        coefficients = regress(snapshots, degree) if first is None else first
        found = PolynomialFit(*fitting.stages(coefficients, pairs, substeps), substeps)
        while found.substeps < SUBSTEPS[-1]:
            error = fitting.integrator_error(found.coefficients, pairs, found.substeps)
            if error < _INTEGRATOR_ERROR:
                break
            substeps = 2 * found.substeps
            again = fitting.stages(found.coefficients, pairs, substeps)
            found = PolynomialFit(*again, substeps)
        return found
    except np.linalg.LinAlgError as error:
        raise TrainingError(
            f"no polynomial of degree {degree}: its equations leave the finite range"
        ) from error


def regress(snapshots: list[Snapshots], degree: int) -> Values:
    """Coefficients by least squares of increments on integrals of the products.

    Samples are splined over their number, in which logarithmic times are smooth too;
    both sides are divided by the interval, so that slow and fast ones count the same.
    """
    gram: Values | float = 0.0
    right: Values | float = 0.0
    inputs = snapshots[0].z.shape[1] + snapshots[0].others.shape[1]
    index = factors(inputs, degree)
    for each in snapshots:
        ones = np.ones((len(each.z), 1))
        variables = np.concatenate([each.z, each.others, ones], axis=1)
        values = np.prod(variables[:, index], axis=2)
        width = np.diff(each.times)[:, None]
        means = _integrals(values, each) / width
        slopes = np.diff(each.z, axis=0) / width
        gram = gram + means.T @ means
        right = right + means.T @ slopes
    gram, right = np.asarray(gram), np.asarray(right)
    scale = np.sqrt(np.maximum(np.diag(gram), 1e-300))
    values, vectors = np.linalg.eigh(gram / scale[:, None] / scale)
    inverse = np.where(values > _SINGULAR * values[-1], 1 / values, 0.0)
    solved = (vectors * inverse) @ (vectors.T @ (right / scale[:, None]))
    return (solved / scale[:, None]).T


def _integrals(values: Values, snapshots: Snapshots) -> Values:
    """Of each product over each interval."""
    number = np.arange(len(values))
    has_kinks = np.ptp(snapshots.others, axis=0).any() if len(values) else False
    if len(values) < 4 or has_kinks:
        width = np.diff(snapshots.times)[:, None]
        return width * (values[1:] + values[:-1]) / 2
    stretch = CubicSpline(number, snapshots.times)(number, 1)[:, None]
    return np.diff(
        CubicSpline(number, values * stretch).antiderivative()(number), axis=0
    )


def spread_of(snapshots: list[Snapshots]) -> Values:
    """Standard deviations; of what stands still, its size."""
    z = np.concatenate([each.z for each in snapshots])
    return or_size(z.std(axis=0), np.abs(z).max(axis=0))


@dataclasses.dataclass
class _Fitting:
    """The rounds, from stage to stage."""

    degree: int
    spread: Values
    seed: int
    report: Callable[[str], None]
    left: int = 0
    """Rounds that may still be done."""
    longest: float = 0.0
    """Interval of the last stage. How many stages lead there shows on the way, so a
    report tells how long intervals are, and no time that is left."""

    def stages(
        self, coefficients: Values, pairs: Pairs, substeps: int
    ) -> tuple[Values, float]:
        """Rounds over growing sets of intervals; the last one is all of them."""
        count, growth = len(pairs.width), _GROWTH
        fewest = max(int(count * _FEWEST), 1)
        limit = max(pairs.width[0] * _FIRST_STAGE, pairs.width[fewest - 1])
        reached, residual = 0.0, np.inf
        self.left, self.longest = _MOST_ROUNDS, float(pairs.width[-1])
        while True:
            chosen = self._choose(pairs, limit)
            trial, residual, good = self._rounds(coefficients, chosen, substeps)
            if good > 1 - _NOT_GOOD and residual < _COLLAPSED:
                reached = limit
                coefficients = self._significant(trial, chosen, substeps)
                if limit >= pairs.width[-1]:
                    return coefficients, residual
            elif good > 1 - _NOT_GOOD or not reached or self.left <= 0:
                # Near the data all the way and still wrong: shorter stages do not help.
                raise self._refusal(limit, residual)
            elif growth > _SLOWEST_GROWTH:
                growth = np.sqrt(growth)
            else:
                raise self._refusal(limit, residual)
            limit = min(reached * growth, float(pairs.width[-1]))

    def _significant(self, coefficients: Values, pairs: Pairs, substeps: int) -> Values:
        """The fewest coefficients that fit about as well, the others 0.

        What short intervals do not tell from 0 is noise, and longer ones amplify it.
        """
        normal = equations(coefficients, pairs, self.degree, substeps, self.spread)
        if normal.right.ndim > 1:
            return coefficients
        self.report(f"degree {self.degree}, leaving out what the data do not tell")
        allowed = (_SIGNIFICANT - 1) * normal.loss * len(pairs.width)
        for part in (1.0, 0.1, 0.01):
            kept = without_noise(coefficients.ravel(), normal.gram, part * allowed)
            trial = kept.reshape(coefficients.shape)
            loss = robust_loss(self._errors(trial, pairs, substeps))
            if loss < _SIGNIFICANT * normal.loss + _EXACT:
                return trial
        return coefficients

    def _refusal(self, limit: float, residual: float) -> TrainingError:
        return TrainingError(
            f"no polynomial of degree {self.degree}: steps over intervals up to "
            f"{limit:.3g} err by {residual:.2g} standard deviations"
        )

    def integrator_error(
        self, coefficients: Values, pairs: Pairs, substeps: int
    ) -> float:
        """What halving the integrator's steps changes, in standard deviations."""
        chosen = self._choose(pairs, float(pairs.width[-1]))
        once, twice = (
            ends_of(coefficients, chosen, self.degree, m)
            for m in (substeps, 2 * substeps)
        )
        change = (once - twice) / self.spread
        return float(np.sqrt(np.mean(np.max(change**2, axis=1))))

    def _errors(self, coefficients: Values, pairs: Pairs, substeps: int) -> Values:
        """Of the ends of intervals, in standard deviations."""
        ends = ends_of(coefficients, pairs, self.degree, substeps)
        return (pairs.end - ends) / self.spread

    def _choose(self, pairs: Pairs, limit: float) -> Pairs:
        """Intervals up to a length, whole chunks of them."""
        count = int(np.searchsorted(pairs.width, limit * (1 + 1e-9), side="right"))
        index = np.arange(count)
        if count > MOST_PAIRS:
            rng = np.random.default_rng([self.seed, 25])
            index = np.sort(rng.permutation(count)[:MOST_PAIRS])
        return pairs.take(np.resize(index, -(-len(index) // CHUNK) * CHUNK))

    def _rounds(
        self, coefficients: Values, pairs: Pairs, substeps: int
    ) -> tuple[Values, float, float]:
        """Gauss-Newton with damping until nothing is gained.

        Returns:
            Coefficients, their root mean square residual, and the part of the
            intervals over which the model stays near the data.
        """
        damping, residual, good = 1e-8, np.inf, 0.0
        for number in range(_ROUNDS):
            self.left -= 1
            self.report(
                f"degree {self.degree}, intervals to {pairs.width.max():.3g} of "
                f"{self.longest:.3g}, round {number + 1} of at most {_ROUNDS}"
            )
            normal = equations(coefficients, pairs, self.degree, substeps, self.spread)
            residual, good = normal.residual, normal.good
            if number == 0 and (good < 1 - 10 * _NOT_GOOD or residual > _LOST):
                break
            step, loss, damping = self._step(
                normal, coefficients, pairs, substeps, damping
            )
            if step is None:
                break
            coefficients = coefficients + step
            if loss > _GAIN * normal.loss or loss < _EXACT:
                break
        errors = self._errors(coefficients, pairs, substeps)
        near = is_near(errors)
        residual = float(np.sqrt(np.mean(errors[near] ** 2))) if near.any() else np.inf
        return coefficients, residual, float(near.mean())

    def _step(
        self,
        normal: Normal,
        coefficients: Values,
        pairs: Pairs,
        substeps: int,
        damping: float,
    ) -> tuple[Values | None, float, float]:
        """The least damped step that lowers the loss, its loss, the next damping."""
        scale = np.sqrt(np.maximum(np.diag(normal.gram), 1e-300))
        values, vectors = np.linalg.eigh(normal.gram / scale[:, None] / scale)
        values = np.maximum(values, 0.0)
        projected = (vectors.T @ (normal.right.T / scale).T).T
        for trial in range(_TRIALS):
            damped = values + damping * values[-1]
            step = (vectors @ (projected / damped).T).T / scale
            step = step.reshape(coefficients.shape)
            loss = robust_loss(self._errors(coefficients + step, pairs, substeps))
            if loss < normal.loss:
                return step, loss, damping / 10 if trial == 0 else damping
            damping *= 10
        return None, normal.loss, damping


def without_noise(coefficients: Values, gram: Values, allowed: float) -> Values:
    """Coefficients with the least telling ones 0, the others fitted again.

    One after another that whose absence costs least is left out, by the quadratic model
    of the loss, until all together would cost more than is allowed.

    Args:
        coefficients: Where the loss is least.
        gram: Normal equations there.
        allowed: What the sum of squared residuals may grow by.
    """
    scale = np.sqrt(np.maximum(np.diag(gram), 1e-300))
    values, vectors = np.linalg.eigh(gram / scale[:, None] / scale)
    inverse = (vectors / np.maximum(values, _SINGULAR * values[-1])) @ vectors.T
    kept = coefficients * scale
    active = np.ones(len(kept), bool)
    spent = 0.0
    for _ in range(len(kept) - 1):
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
