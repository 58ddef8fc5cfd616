"""Several least-squares searches at once, whose evaluations are computed together.

Each search is SciPy's and runs in a thread of its own; what all of them ask for next
is one batch::

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
        evaluate: Computes one batch; called by one thread at a time.
        starts: ``(start, unknown)``.
        most_evaluations: Of one search.
        on_round: Told after each batch how many searches have ended and the least sum
            of squares; what it raises ends all of them.

    Returns:
        What each search found; None where its start is not finite.
    """
    gathered = _Gathered(evaluate, starts, on_round)

    def one(index: int) -> Optimum | None:
        try:
            return _one(gathered, index, starts[index], most_evaluations)
        finally:
            gathered.leave()

    with ThreadPoolExecutor(len(starts), thread_name_prefix="search") as pool:
        return list(pool.map(one, range(len(starts))))


def _one(
    gathered: "_Gathered", index: int, start: Floats, most_evaluations: int
) -> Optimum | None:
    known: dict[bytes, tuple[Floats, Floats]] = {}

    def both(v: Floats) -> tuple[Floats, Floats]:
        key = v.tobytes()
        if key not in known:
            known.clear()
            known[key] = gathered.ask(index, v)
        return known[key]

    if not np.isfinite(both(start)[0]).all():
        return None
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


class _Gathered:
    """Collects what the searches ask for until all that still run have asked."""

    def __init__(
        self,
        evaluate: Evaluate,
        starts: Floats,
        on_round: Callable[[int, float], None],
    ) -> None:
        self._evaluate = evaluate
        self._on_round = on_round
        # A search that has ended keeps its row, so that shapes and rows stay.
        self._points = starts.copy()
        self._running = len(starts)
        self._best = np.inf
        self._asked: set[int] = set()
        self._answers: dict[int, tuple[Floats, Floats]] = {}
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def ask(self, index: int, v: Floats) -> tuple[Floats, Floats]:
        """Residuals and Jacobian at a point, when all others have asked too."""
        with self._changed:
            self._points[index] = v
            self._asked.add(index)
            self._compute_if_complete()
            self._changed.wait_for(lambda: index in self._answers or self._error)
            if self._error is not None:
                raise self._error
            return self._answers.pop(index)

    def leave(self) -> None:
        """The search has ended: nobody is to wait for it."""
        with self._changed:
            self._running -= 1
            self._compute_if_complete()

    def _compute_if_complete(self) -> None:
        if self._error is not None or not self._asked:
            return
        if len(self._asked) < self._running:
            return
        try:
            residuals, jacobians = self._evaluate(self._points)
            for i in self._asked:
                self._answers[i] = residuals[i], jacobians[i]
            costs = np.sum(residuals**2, axis=1)
            self._best = min(self._best, float(np.nanmin([*costs, np.inf])))
            self._on_round(len(self._points) - self._running, self._best)
        except BaseException as error:
            self._error = error
        self._asked.clear()
        self._changed.notify_all()
