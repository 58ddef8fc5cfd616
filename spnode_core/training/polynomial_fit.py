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

from spnode_core.errors import TrainingError
from spnode_core.nonlinear.polynomial import factors
from spnode_core.training.error_units import Units
from spnode_core.training.kept_sums import elimination
from spnode_core.training.one_step import (
    CHUNK,
    Normal,
    Pairs,
    ends_of,
    equations,
    interval_pairs,
    is_decoupled,
    residual_of,
    robust_loss,
)
from spnode_core.training.operator_inference import Snapshots
from spnode_core.training.significant import SINGULAR, scaled_gram, without_noise

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
_ROUNDS_BY_RATIO, _TIMES_BY_RATIO = (40, 0.99), 4
# Leaving coefficients out may cost so much of the loss.
_SIGNIFICANT = 4.0
_INTEGRATOR_ERROR = 1e-4
# What ratios may cost of single steps, in standard deviations.
_BEARABLE = 1e-4


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
    sums: Values | None = None,
) -> PolynomialFit:
    """The polynomial whose steps from sample to sample err least.

    Args:
        snapshots: Latent samples of each trajectory.
        degree: Of the products of latent variables, controls and parameters.
        seed: Source of the choice among many intervals.
        report: Is told what is being done, and may raise to stop.
        first: Coefficients that the rounds begin with, ``(latent, term)``; those of
            least squares where None.
        sums: Sums of latent variables to be kept exactly, ``(sum, latent)``; not where
            there are too many coefficients to be fitted at once.

    Raises:
        TrainingError: The errors of single steps do not collapse: the system is no
            such polynomial, or its samples are too coarse for it.
    """
    snapshots = [each for each in snapshots if len(each.times) > 1]
    if not snapshots:
        raise TrainingError("no two samples of a trajectory lie beside each other")
    pairs = interval_pairs(snapshots)
    if first is None:
        report(f"least squares for a polynomial of degree {degree}")
    substeps = SUBSTEPS[0]
    try:
        coefficients = regress(snapshots, degree) if first is None else first
        if sums is None or is_decoupled(coefficients):
            sums = np.zeros((0, len(coefficients)))
        basis, free = elimination(sums, snapshots)
        fitting = _Fitting(degree, Units.of(snapshots), basis, seed, report)
        coefficients = coefficients[free]
        found = PolynomialFit(*fitting.stages(coefficients, pairs, substeps), substeps)
        while found.substeps < SUBSTEPS[-1]:
            error = fitting.integrator_error(found.coefficients, pairs, found.substeps)
            if error < _INTEGRATOR_ERROR:
                break
            substeps = 2 * found.substeps
            again = fitting.stages(found.coefficients, pairs, substeps)
            found = PolynomialFit(*again, substeps)
        found = fitting.by_ratio(found, pairs)
        whole = fitting.basis @ found.coefficients
        return dataclasses.replace(found, coefficients=whole)
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
    inverse = np.where(values > SINGULAR * values[-1], 1 / values, 0.0)
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


@dataclasses.dataclass
class _Fitting:
    """The rounds, from stage to stage.

    ``coefficients`` are those of the free rows ``F`` of ``C = B F`` throughout.
    """

    degree: int
    units: Units
    basis: Values
    """``B``: all rows from the free ones."""
    seed: int
    report: Callable[[str], None]
    is_by_ratio: bool = False
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

    def by_ratio(self, found: PolynomialFit, pairs: Pairs) -> PolynomialFit:
        """Further rounds on ratios, where states span decades.

        What they are later judged by: a term that standard deviations do not tell from
        0 may decide how what is left decays. What was found stays where these rounds
        run out of time, gain nothing, or cost single steps too much.
        """
        if np.isnan(self.units.ratios).all() or is_decoupled(found.coefficients):
            return found
        chosen = self._choose(pairs, self.longest)
        self.is_by_ratio = True
        try:
            coefficients = self._rounds_by_ratio(found, chosen)
        except TrainingError:
            coefficients = None
        self.is_by_ratio = False
        if coefficients is None:
            return found
        errors = self._errors(coefficients, chosen, found.substeps)
        residual, good = residual_of(errors)
        most = min(max(_SIGNIFICANT * found.residual, _BEARABLE), _COLLAPSED)
        if good <= 1 - _NOT_GOOD or residual > most:
            return found
        return PolynomialFit(coefficients, residual, found.substeps)

    def _rounds_by_ratio(self, found: PolynomialFit, pairs: Pairs) -> Values | None:
        """Coefficients whose ratios err less, None where none were found."""
        coefficients, substeps = found.coefficients, found.substeps
        before = robust_loss(self._errors(coefficients, pairs, substeps))
        for number in range(_TIMES_BY_RATIO):
            coefficients, residual, good = self._rounds(coefficients, pairs, substeps)
            if good <= 1 - _NOT_GOOD or residual > _LOST:
                return None
            if number + 1 < _TIMES_BY_RATIO:
                # Fewer terms make shorter valleys.
                coefficients = self._significant(coefficients, pairs, substeps)
        after = robust_loss(self._errors(coefficients, pairs, substeps))
        return coefficients if after < before else None

    def _significant(self, coefficients: Values, pairs: Pairs, substeps: int) -> Values:
        """The fewest coefficients that fit about as well, the others 0.

        What short intervals do not tell from 0 is noise, and longer ones amplify it.
        """
        normal = self._equations(coefficients, pairs, substeps)
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
            ends_of(self.basis @ coefficients, chosen, self.degree, m)
            for m in (substeps, 2 * substeps)
        )
        change = (once - twice) / self._unit(chosen)
        return float(np.sqrt(np.mean(np.max(change**2, axis=1))))

    def _errors(self, coefficients: Values, pairs: Pairs, substeps: int) -> Values:
        """Of the ends of intervals, in their units."""
        ends = ends_of(self.basis @ coefficients, pairs, self.degree, substeps)
        return (pairs.end - ends) / self._unit(pairs)

    def _equations(self, coefficients: Values, pairs: Pairs, substeps: int) -> Normal:
        """Normal equations in these units."""
        basis = self.basis
        whole = basis @ coefficients
        unit = self._unit(pairs)
        normal = equations(whole, pairs, self.degree, substeps, unit)
        latent, free = basis.shape
        if free == latent:
            return normal
        size = free * coefficients.shape[1]
        gram = normal.gram.reshape(latent, -1, latent, whole.shape[1])
        gram = np.einsum("ia,icjd,jb->acbd", basis, gram, basis, optimize=True)
        right = basis.T @ normal.right.reshape(latent, -1)
        return normal._replace(gram=gram.reshape(size, size), right=right.ravel())

    @property
    def _patience(self) -> tuple[int, float]:
        """The most rounds of a stage, and the loss over the one before that ends it.

        Ratios lie in long valleys: a round that gains little may come before one that
        gains much.
        """
        return _ROUNDS_BY_RATIO if self.is_by_ratio else (_ROUNDS, _GAIN)

    def _unit(self, pairs: Pairs) -> Values:
        if self.is_by_ratio:
            return self.units.by_ratio(pairs.end)
        return np.broadcast_to(self.units.spread, pairs.end.shape)

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
        most, gain = self._patience
        for number in range(most):
            self.left -= 1
            self.report(
                f"degree {self.degree}, intervals to {pairs.width.max():.3g} of "
                f"{self.longest:.3g}, round {number + 1} of at most {most}"
            )
            normal = self._equations(coefficients, pairs, substeps)
            residual, good = normal.residual, normal.good
            if number == 0 and (good < 1 - 10 * _NOT_GOOD or residual > _LOST):
                break
            step, loss, damping = self._step(
                normal, coefficients, pairs, substeps, damping
            )
            if step is None:
                break
            coefficients = coefficients + step
            if loss > gain * normal.loss or loss < _EXACT:
                break
        return coefficients, *residual_of(self._errors(coefficients, pairs, substeps))

    def _step(
        self,
        normal: Normal,
        coefficients: Values,
        pairs: Pairs,
        substeps: int,
        damping: float,
    ) -> tuple[Values | None, float, float]:
        """The least damped step that lowers the loss, its loss, the next damping."""
        scale, scaled = scaled_gram(normal.gram)
        values, vectors = np.linalg.eigh(scaled)
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
