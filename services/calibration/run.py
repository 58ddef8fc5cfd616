"""The work of a calibration job, in a process of its own."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from services.calibration.request import PlannedCalibration, problem_of
from services.job_files import STORE
from services.rollouts.domain import domain_fields
from services.rollouts.operations import distances
from services.rollouts.served import Served
from services.training.run import finite
from services.versions import ARTIFACTS
from spnode_core.artifact import load
from spnode_core.calibration.box import Box, draw_starts
from spnode_core.calibration.calibrate import solve
from spnode_core.calibration.problem import Problem
from spnode_core.surrogate import Surrogate
from spnode_core.training.progress import Stopped

Report = Callable[[dict[str, Any]], None]
_TELL_EVERY_S = 0.5


def run_calibration(
    job: PlannedCalibration,
    folder: Path,
    *,
    report: Report,
    should_stop: Callable[[], str | None],
) -> dict[str, Any]:
    """Find what a job asks for.

    Args:
        job: What to find.
        folder: Holds the artifact.
        report: Told how many searches have ended.
        should_stop: Asked after each batch of evaluations; a reason ends the work.

    Returns:
        The result as the job's row keeps it; JSON.

    Raises:
        Stopped: ``should_stop`` gave a reason.
        InvalidInput: The request does not fit the version.
        CalibrationError: No search gave an estimate.
    """
    report({"type": "progress", "stage": "load", "message": "loading the model"})
    surrogate = load(folder / STORE / ARTIFACTS / job.digest, digest=job.digest)
    problem = problem_of(job, surrogate.signature)
    found = solve(
        surrogate,
        problem,
        starts=job.starts,
        seed=job.seed,
        coverage=job.coverage,
        on_round=_Rounds(job.starts, report, should_stop),
    )
    served = _served(job, surrogate)
    values = np.array([[each.value for each in found.estimates]])
    domain = _domain(served, problem, values, surrogate)
    starts = Box.of(problem.unknowns).values(
        draw_starts(problem.unknowns, job.starts, job.seed)
    )
    inside = _domain(served, problem, starts, surrogate)["domain"]["inside"]
    record = found.as_record()
    record["warnings"] += domain["warnings"] + _unknown_error(job)
    return finite(
        {
            "model": served.model,
            "version": job.version,
            "digest": job.digest,
            "states": list(problem.names),
            "times": job.times,
            **record,
            "model_error": dict(zip(problem.names, problem.model_error, strict=True)),
            "domain": {
                "inside": domain["domain"]["inside"][0],
                "outside": domain["domain"]["outside"],
                "starts_outside": inside.count(False),
            },
        }
    )


class _Rounds:
    """Tells how far the searches are, now and then, and ends them when asked to."""

    def __init__(
        self, starts: int, report: Report, should_stop: Callable[[], str | None]
    ) -> None:
        self._starts = starts
        self._report = report
        self._should_stop = should_stop
        self._began = time.monotonic()
        self._told = -1.0

    def __call__(self, ended: int, best: float) -> None:
        if (reason := self._should_stop()) is not None:
            raise Stopped(reason)
        seconds = time.monotonic() - self._began
        if seconds - self._told < _TELL_EVERY_S:
            return
        self._told = seconds
        self._report(
            {
                "type": "progress",
                "stage": "search",
                "message": f"searching from {self._starts} starts",
                "iteration": ended,
                "iterations": self._starts,
                "loss": best if np.isfinite(best) else None,
                "seconds": round(seconds, 3),
            }
        )


def _served(job: PlannedCalibration, surrogate: Surrogate) -> Served:
    name = job.model.partition("@")[0].partition("/")[0]
    return Served(name, job.version, job.digest, surrogate.signature, surrogate.spec)


def _domain(
    served: Served, problem: Problem, values: np.ndarray, surrogate: Surrogate
) -> dict[str, Any]:
    """The domain of rollouts from there, as an answer to them has it."""
    rows, distance = problem.inputs(values), None
    if served.signature.domain.neighbours:
        distance = np.asarray(distances(surrogate, rows))
    end = float(problem.times[-1])
    return domain_fields(served, rows, end, distance=distance, listed=True)


def _unknown_error(job: PlannedCalibration) -> list[str]:
    if job.noise is None or job.model_error is not None:
        return []
    return [
        "the version has no held-out errors, so its own error counts as nothing: give "
        "model_error"
    ]
