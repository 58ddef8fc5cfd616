"""Several least-squares searches at once, whose evaluations are computed together.

Each search is SciPy's and runs in a thread of its own; what all of them ask for next
is one batch, which the caller's thread computes::

    search 0 ── v0 ─▶ ┐                        ┌─▶ r0, J0
    search 1 ── v1 ─▶ ├ evaluate((v0, v1, …)) ─┼─▶ r1, J1
    …                 ┘                        └─▶ …
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

Floats = NDArray[np.float64]
Evaluate = Callable[[Floats], tuple[Floats, Floats]]
"""From points ``(start, unknown)`` to residuals and their Jacobians, a start each."""
# Both far below what noise leaves of an estimate.
_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Optimum:
    """Where one search ended.

    Args:
        v: The point of the box.
        cost: Sum of the squared residuals there.
        residuals: At the point.
        jacobian: Of the residuals by ``v``.
        converged: Whether it ended by itself.
        evaluations: How many it took.
    """

    v: Floats
    cost: float
    residuals: Floats
    jacobian: Floats
    converged: bool
    evaluations: int


def search(
    evaluate: Evaluate,
    starts: Floats,
    *,
    most_evaluations: int,
    on_round: Callable[[int, float], None],
) -> list[Optimum | None]:
    """Search from every start within the unit box, all at once.

    Args:
        evaluate: Computes one batch.
        starts: ``(start, unknown)``.
        most_evaluations: Of one search.
        on_round: Told after each batch how many searches have ended and the least sum
            of squares; what it raises ends all of them.

    Returns:
        What each search found; None where its start is not finite.
    """
    asked = _Asked(starts)

    def one(index: int) -> Optimum | None:
        try:
            return _one(asked, index, starts[index], most_evaluations)
        finally:
            asked.leave()

    best = np.inf
    with ThreadPoolExecutor(len(starts), thread_name_prefix="search") as pool:
        searches = [pool.submit(one, index) for index in range(len(starts))]
        try:
            while (points := asked.complete()) is not None:
                residuals, jacobians = evaluate(points)
                costs = np.sum(residuals**2, axis=1)
                best = min(best, float(np.nanmin([*costs, np.inf])))
                on_round(asked.ended, best)
                asked.answer(residuals, jacobians)
        except BaseException as error:
            asked.fail(error)
            raise
        return [each.result() for each in searches]


def _one(
    asked: "_Asked", index: int, start: Floats, most_evaluations: int
) -> Optimum | None:
    known: dict[bytes, tuple[Floats, Floats]] = {}

    def both(v: Floats) -> tuple[Floats, Floats]:
        key = v.tobytes()
        if key not in known:
            known.clear()
            known[key] = asked.ask(index, v)
        return known[key]

    with np.errstate(over="ignore"):
        residuals, jacobian = both(start)
        if not np.isfinite([np.sum(residuals**2), np.sum(jacobian**2)]).all():
            return None
    try:
        return _searched(both, start, most_evaluations)
    except (ValueError, np.linalg.LinAlgError):
        # On its way a Jacobian was not finite, of which SciPy makes nothing.
        return None


def _searched(
    both: Callable[[Floats], tuple[Floats, Floats]],
    start: Floats,
    most_evaluations: int,
) -> Optimum:
    found: Any = least_squares(
        lambda v: both(v)[0],
        start,
        lambda v: both(v)[1],  # pyright: ignore[reportArgumentType]
        bounds=(0.0, 1.0),
        method="trf",
        x_scale="jac",
        ftol=_TOLERANCE,
        xtol=_TOLERANCE,
        gtol=_TOLERANCE,
        max_nfev=most_evaluations,
    )
    return Optimum(
        found.x, 2 * found.cost, found.fun, found.jac, found.status > 0, found.nfev
    )


class _Asked:
    """What the searches ask for, and what they are answered.

    Args:
        starts: Of all searches.
    """

    def __init__(self, starts: Floats) -> None:
        # A search that has ended keeps its row, so that shapes and rows stay.
        self._points = starts.copy()
        self._running = len(starts)
        self._waiting: set[int] = set()
        self._answers: dict[int, tuple[Floats, Floats]] = {}
        self._error: BaseException | None = None
        lock = threading.Lock()
        self._complete = threading.Condition(lock)
        self._answered = threading.Condition(lock)

    @property
    def ended(self) -> int:
        """How many searches have ended."""
        return len(self._points) - self._running

    def ask(self, index: int, v: Floats) -> tuple[Floats, Floats]:
        """Residuals and Jacobian at a point, for a search."""
        with self._answered:
            self._points[index] = v
            self._waiting.add(index)
            self._tell()
            self._answered.wait_for(lambda: index in self._answers or self._error)
            if self._error is not None:
                raise self._error
            return self._answers.pop(index)

    def leave(self) -> None:
        """A search has ended: nobody is to wait for it."""
        with self._complete:
            self._running -= 1
            self._tell()

    def complete(self) -> Floats | None:
        """The points, when all searches that run have asked; None when none runs."""
        with self._complete:
            self._complete.wait_for(self._is_complete)
            return self._points.copy() if self._running else None

    def answer(self, residuals: Floats, jacobians: Floats) -> None:
        """Answer all that wait."""
        with self._answered:
            for index in self._waiting:
                self._answers[index] = residuals[index], jacobians[index]
            self._waiting.clear()
            self._answered.notify_all()

    def fail(self, error: BaseException) -> None:
        """End all searches."""
        with self._answered:
            self._error = error
            self._answered.notify_all()

    def _is_complete(self) -> bool:
        return len(self._waiting) == self._running

    def _tell(self) -> None:
        if self._is_complete():
            self._complete.notify_all()
