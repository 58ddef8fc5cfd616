"""``calibrate``: from observations to estimates with intervals.

::

    pose ─▶ starts ─▶ searches, all at once ─▶ different optima ─▶ spread of the best
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2

from spnode_core.calibration.box import Box, draw_starts
from spnode_core.calibration.laplace import Laplace
from spnode_core.calibration.problem import Problem, pose
from spnode_core.calibration.residuals import Residuals, standard_deviations
from spnode_core.calibration.result import Calibration, LocalOptimum, Misfit
from spnode_core.calibration.together import Optimum, search
from spnode_core.errors import CalibrationError, InvalidInput
from spnode_core.spec import UnknownsSpec
from spnode_core.surrogate import Surrogate, require_x64

Floats = NDArray[np.float64]
OnRound = Callable[[int, float], None]

STARTS = 32
COVERAGE = 0.95
MOST_EVALUATIONS = 200
# Optima nearer than this, in widths of the box, are one.
_SAME = 1e-3
# Misfits this improbable say that model or noise are wrong.
_IMPROBABLE = 1e-3


def calibrate(
    surrogate: Surrogate,
    times: ArrayLike,
    observations: ArrayLike,
    unknowns: UnknownsSpec | Mapping[str, Any],
    *,
    states: Sequence[str] | None = None,
    noise: ArrayLike | None = None,
    model_error: ArrayLike | None = None,
    x0: ArrayLike | None = None,
    parameters: ArrayLike | None = None,
    controls: ArrayLike | None = None,
    control_times: ArrayLike | None = None,
    starts: int = STARTS,
    seed: int = 0,
    coverage: float = COVERAGE,
    on_round: OnRound | None = None,
) -> Calibration:
    """Find parameters, initial states or controls from observations.

    Weighted least squares from many starts: a Latin hypercube over the bounds, the same
    for the same seed.

    Args:
        surrogate: The model.
        times: Increasing times of the observations from the start of the rollout,
            ``(time,)``.
        observations: ``(time, state)``; None or NaN where there is none.
        unknowns: ``{"parameters": {"k1": {"lower": …, "upper": …}}, "x0": …,
            "controls": …}``, with ``start``, ``prior`` and ``scale`` where wanted.
        states: Names of the observed states, all by default.
        noise: Standard deviation of the noise, one a state or one an observation;
            without it one factor on the size of the states is estimated.
        model_error: Standard deviation of the surrogate's own error, one a state; 0
            by default. It counts as the same at all times.
        x0: Known initial states; None or anything where unknown.
        parameters: Known parameters, likewise.
        controls: Known controls, ``(interval, control)``, likewise.
        control_times: Start of each control interval, the first 0; None of one.
        starts: Number of searches.
        seed: Source of their starts.
        coverage: Probability that intervals are made for.
        on_round: Told now and then how many searches have ended and the least sum of
            squares; what it raises ends the calibration.

    Raises:
        InvalidInput: What cannot be used, where, and what belongs there.
        CalibrationError: No search from any start gave an estimate.
    """
    problem = pose(
        surrogate.signature,
        times,
        observations,
        unknowns,
        states=states,
        noise=noise,
        model_error=model_error,
        x0=x0,
        parameters=parameters,
        controls=controls,
        control_times=control_times,
    )
    return solve(
        surrogate,
        problem,
        starts=starts,
        seed=seed,
        coverage=coverage,
        on_round=on_round,
    )


def solve(
    surrogate: Surrogate,
    problem: Problem,
    *,
    starts: int = STARTS,
    seed: int = 0,
    coverage: float = COVERAGE,
    on_round: OnRound | None = None,
) -> Calibration:
    """Solve a problem that was checked; the arguments are those of ``calibrate``."""
    require_x64()
    if not 0 < coverage < 1:
        raise InvalidInput(
            "coverage", found=repr(coverage), expected="a probability, such as 0.95"
        )
    if starts < 1:
        raise InvalidInput("starts", found=repr(starts), expected="at least 1")
    scale = _sizes(problem)
    residuals = Residuals(surrogate, problem, scale)
    found = search(
        residuals,
        draw_starts(problem.unknowns, starts, seed),
        most_evaluations=MOST_EVALUATIONS,
        on_round=on_round or (lambda _ended, _best: None),
    )
    ends = [each for each in found if each is not None and math.isfinite(each.cost)]
    if not ends:
        raise CalibrationError(
            f"from none of {starts} starts the model's states are finite: narrow the "
            "bounds of the unknowns"
        )
    groups = _grouped(ends)
    made = _result(problem, residuals, groups, len(found), coverage, scale)
    # Where the noise is estimated sums of squares are in parts of its variance.
    unit = made.misfit.reduced if problem.noise is None else 1.0
    return replace(made, warnings=(*_unfinished(ends, groups, unit), *made.warnings))


@dataclass(frozen=True)
class _Group:
    """Searches that ended at one place, the best of them first."""

    best: Optimum
    count: int


def _grouped(ends: list[Optimum]) -> list[_Group]:
    """Different optima, the best first; those that did not converge come last."""
    groups: list[_Group] = []
    for each in sorted(ends, key=lambda end: (not end.converged, end.cost)):
        for i, group in enumerate(groups):
            if np.abs(group.best.v - each.v).max() < _SAME:
                groups[i] = _Group(group.best, group.count + 1)
                break
        else:
            if each.converged or not groups:
                groups.append(_Group(each, 1))
    return groups


def _result(
    problem: Problem,
    residuals: Residuals,
    groups: list[_Group],
    starts: int,
    coverage: float,
    scale: Floats,
) -> Calibration:
    unknowns, box = problem.unknowns, Box.of(problem.unknowns)
    best = groups[0].best
    misfit = _misfit(problem, best, scale)
    factor, freedom = 1.0, None
    if problem.noise is None:
        factor, freedom = math.sqrt(misfit.reduced), misfit.degrees_of_freedom
    laplace = Laplace.of(best.v, best.jacobian, factor)
    predicted = residuals.predict(best.v)[:, list(problem.states)]
    sd = factor * standard_deviations(problem, scale)
    estimates = laplace.estimates(unknowns, coverage, freedom)
    vague = laplace.vague_directions(unknowns)
    warnings = [
        *([] if best.converged else ["no search has converged"]),
        *(
            f"{each.label} lies on its {each.at_bound} bound: its interval says little"
            for each in estimates
            if each.at_bound
        ),
        *(
            "the observations do not tell "
            + " ".join(f"{part:+.2f} {label}" for label, part in direction.items())
            for direction in vague
        ),
        *_rivals(groups, factor),
        *_improbable(misfit),
    ]
    return Calibration(
        estimates=estimates,
        covariance=laplace.physical(unknowns),
        correlation=laplace.correlation(),
        coverage=coverage,
        misfit=misfit,
        noise=_noise(problem, factor, scale),
        predicted=predicted,
        residuals=(problem.observations - predicted) / sd,
        optima=tuple(
            LocalOptimum(box.values(group.best.v), group.best.cost, group.count)
            for group in groups
            if group.best.converged or group is groups[0]
        ),
        starts=starts,
        converged=sum(group.count for group in groups if group.best.converged),
        unidentified=vague,
        warnings=tuple(warnings),
    )


def _misfit(problem: Problem, best: Optimum, scale: Floats) -> Misfit:
    count = int(problem.seen.sum())
    data = float(np.sum(best.residuals[:count] ** 2))
    prior = float(np.sum(best.residuals[count:] ** 2))
    freedom = len(best.residuals) - len(problem.unknowns)
    known = problem.noise is not None and freedom > 0
    least = _least_misfit(problem, best, scale) if known else math.nan
    return Misfit(
        chi_squared=data,
        prior=prior,
        observations=count,
        degrees_of_freedom=freedom,
        reduced=(data + prior) / freedom if freedom > 0 else math.nan,
        p_value=float(chi2.sf(least, freedom)) if known else math.nan,
    )


def _least_misfit(problem: Problem, best: Optimum, scale: Floats) -> float:
    """The sum of squares that has chi-squared's distribution, where it is least.

    Searches weigh an observation by its noise and all of its state's model error, so
    that no number of observations outdoes that error. Here noise is of each by itself
    and one error is shared by all of a state, ``S = diag(noise^2) + error^2 1 1^T``.
    """
    residuals = best.residuals
    if not np.any(problem.model_error):
        return float(np.sum(residuals**2))
    count = int(problem.seen.sum())
    sd = standard_deviations(problem, scale)[problem.seen][:, None]
    both = np.column_stack([residuals, best.jacobian])
    both[:count] = _by_shared_error(problem, both[:count] * sd)
    residuals, jacobian = both[:, 0], both[:, 1:]
    step = np.linalg.lstsq(jacobian, residuals)[0]
    return float(np.sum((residuals - jacobian @ step) ** 2))


def _by_shared_error(problem: Problem, errors: Floats) -> Floats:
    """``S^(-1/2)`` times columns of errors, ``(observation, column)``.

    ``S^(-1/2) = (I - c u u^T) diag(1 / noise)``, u along ``1 / noise``, by state.
    """
    seen = problem.seen
    noise = np.broadcast_to(np.asarray(problem.noise), seen.shape)[seen][:, None]
    shared = np.broadcast_to(problem.model_error, seen.shape[1])
    whitened, column = errors / noise, np.nonzero(seen)[1]
    for state, error in enumerate(shared):
        mine = column == state
        along = 1 / noise[mine]
        size = float(np.sum(along**2))
        if size > 0:
            part = 1 - 1 / math.sqrt(1 + error**2 * size)
            whitened[mine] -= part * along * (along.T @ whitened[mine]) / size
    return whitened


def _noise(problem: Problem, factor: float, scale: Floats) -> dict[str, float]:
    if problem.noise is None:
        sd = factor * scale
    else:
        given = np.where(problem.seen, problem.noise, np.nan)
        seen = np.maximum(problem.seen.sum(axis=0), 1)
        sd = np.sqrt(np.nansum(given**2, axis=0) / seen)
    return dict(zip(problem.names, sd.tolist(), strict=True))


def _sizes(problem: Problem) -> Floats:
    """Largest modulus of each observed state over the training data."""
    domain = problem.signature.domain
    largest = np.maximum(np.abs(domain.lower), np.abs(domain.upper))
    return np.where(largest > 0, largest, 1.0)[list(problem.states)]


def _unfinished(ends: list[Optimum], groups: list[_Group], unit: float) -> list[str]:
    """Searches that were on their way to a better optimum than the one that is told."""
    best = groups[0].best
    better = [e for e in ends if not e.converged and best.cost - e.cost > unit]
    if not better or not best.converged:
        return []
    least = min(end.cost for end in better)
    return [
        f"{len(better)} searches that had not converged after {MOST_EVALUATIONS} "
        f"evaluations explain the observations better (sum of squares {least:.4g}, "
        f"here {best.cost:.4g}): the optimum is not this one; narrow the bounds, or "
        "fix what the observations do not tell"
    ]


def _rivals(groups: list[_Group], factor: float) -> list[str]:
    """Other optima that explain the observations about as well."""
    best = groups[0].best
    near = [
        group
        for group in groups[1:]
        if group.best.converged and (group.best.cost - best.cost) / factor**2 < 4
    ]
    if not near:
        return []
    return [
        f"{len(near)} other optima explain the observations about as well; intervals "
        "are those of the best one alone"
    ]


def _improbable(misfit: Misfit) -> list[str]:
    if not misfit.p_value < _IMPROBABLE:
        return []
    return [
        f"the misfit is improbable (p = {misfit.p_value:.1e}): the model or the noise "
        "stated is wrong, and intervals are too narrow"
    ]
