"""Calibration jobs: what a caller asks for, and what their row keeps of it.

A job is checked as a whole before it is queued: the version is fixed and with it the
model error, names and shapes fit, every number is finite.
"""

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field

from services.registry import VersionRecord
from services.rollouts.wire import Number, SeenMatrix, SeenOrMatrix, Vector, Wire
from services.schedule import Scheduled
from services.settings import Settings
from services.training.request import Seed
from spnode_core.calibration.problem import Problem, pose
from spnode_core.errors import InvalidInput
from spnode_core.spec import ArtifactSpec, DataStepsSpec, Signature, UnknownsSpec
from spnode_core.timegrid import TimeGrid

KIND = "calibration"
MOST_STARTS = 256
_EXAMPLE = {
    "kind": "calibration",
    "model": "reaction",
    "x0": [1.0, 0.0, 0.0],
    "parameters": [None, None, 1e4],
    "times": [0.1, 1.0, 10.0, 100.0, 1000.0],
    "states": ["y1", "y2"],
    "observations": [
        [0.99, 3.5e-5],
        [0.97, 3.1e-5],
        [0.85, 1.6e-5],
        [0.61, 6.2e-6],
        [None, 2.0e-6],
    ],
    "noise": [0.01, 5e-7],
    "unknowns": {
        "parameters": {
            "k1": {"lower": 0.01, "upper": 0.1, "start": 0.04},
            "k2": {"lower": 1e7, "upper": 9e7, "prior": {"mean": 3e7, "sd": 1e7}},
        }
    },
    "starts": 32,
    "seed": 0,
}
_POSED = (
    "times",
    "observations",
    "unknowns",
    "states",
    "noise",
    "model_error",
    "x0",
    "parameters",
    "controls",
    "control_times",
)
_Given = Annotated[list[Number | None], Field(fail_fast=True, max_length=65_536)]


class CalibrationJob(Wire, Scheduled):
    """Find parameters, initial states or controls from observations."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    kind: Literal["calibration"] = KIND
    model: Annotated[str, Field(min_length=1, max_length=200)]
    """``name`` (its champion), ``name@alias``, ``name/3`` or ``name@latest``."""
    times: Vector
    """Times of the observations, from the start of the rollout, in order; one may come
    twice."""
    observations: SeenMatrix
    """A row a time, a column a state; null where there is none."""
    states: Annotated[list[str], Field(min_length=1)] | None = None
    """The observed states, in the order of the columns; all of them by default."""
    noise: SeenOrMatrix | None = None
    """Standard deviation of the noise: one number a state, or the shape of the
    observations. Without it one factor on the size of the states is estimated."""
    model_error: Literal["evaluation"] | Vector = "evaluation"
    """Standard deviation of the model's own error, one number a state; by default its
    rms error on held-out trajectories. It counts as the same at all times."""
    unknowns: UnknownsSpec
    """What is to be found, with its bounds."""
    x0: _Given | None = None
    """Initial states; null where unknown."""
    parameters: _Given | None = None
    """Parameters; null where unknown."""
    controls: Annotated[list[_Given], Field(fail_fast=True)] | None = None
    """Controls from each control time on, ``(control_time, control)``; null where
    unknown."""
    control_times: Vector | None = None
    """Times at which the controls switch; the first is 0."""
    starts: Annotated[int, Field(strict=True, ge=1, le=MOST_STARTS)] = 32
    """From how many places within the bounds searches begin."""
    seed: Seed = 0
    """Source of these places."""
    coverage: Annotated[float, Field(strict=True, gt=0, lt=1)] = 0.95
    """The probability that intervals are made for."""


class PlannedCalibration(CalibrationJob):
    """A calibration job as its row keeps it: checked, its version fixed."""

    version: int
    """The number that ``model`` stood for when the job was submitted."""
    digest: str
    """Its artifact."""
    model_error: Vector | None = None
    """By observed state; None where nothing is known of it."""


def plan(
    job: CalibrationJob, version: VersionRecord, settings: Settings
) -> dict[str, Any]:
    """Check a job as a whole; return what its row keeps.

    Args:
        job: What was asked.
        version: The version that ``model`` stands for.
        settings: Those of the deployment, for its limits.

    Raises:
        InvalidInput: What cannot be used, where, and what belongs there.
    """
    spec = ArtifactSpec.model_validate(
        {"surrogate": version.spec, "signature": version.signature}
    )
    most = settings.max_times
    if len(job.times) > most:
        raise InvalidInput(
            "times", found=f"{len(job.times)} times", expected=f"at most {most}"
        )
    names = list(spec.signature.states) if job.states is None else job.states
    error = job.model_error
    if error == "evaluation":
        error = None if job.noise is None else held_out_error(version.evaluation, names)
    kept = {
        **job.model_dump(mode="json", exclude_unset=True),
        "kind": KIND,
        "version": version.number,
        "digest": version.digest,
        "model_error": error,
    }
    problem = problem_of(PlannedCalibration.model_validate(kept), spec.signature)
    _check_size(job, problem, settings)
    steps = spec.surrogate.steps
    assert not isinstance(steps, DataStepsSpec), "an artifact's steps are resolved"
    TimeGrid.from_spec(steps).plan(job.times, job.control_times)
    return kept


def problem_of(job: PlannedCalibration, signature: Signature) -> Problem:
    """The problem that a job states.

    Raises:
        InvalidInput: What cannot be used, where, and what belongs there.
    """
    return pose(signature, **{name: getattr(job, name) for name in _POSED})


def held_out_error(evaluation: dict[str, Any], states: list[str]) -> list[float] | None:
    """The rms error of some states on trajectories that training did not see.

    None where the version has no such evaluation.
    """
    for part in ("test", "validation"):
        by_state = (evaluation.get(part) or {}).get("states") or {}
        errors = [
            float(by_state[name]["rmse"])
            for name in states
            if (by_state.get(name) or {}).get("rmse") is not None
        ]
        if len(errors) == len(states):
            return errors
    return None


def _check_size(job: CalibrationJob, problem: Problem, settings: Settings) -> None:
    count = int(np.sum(problem.seen))
    if problem.seen.size > settings.max_observations:
        raise InvalidInput(
            "observations",
            found=f"{problem.seen.size} of them",
            expected=f"at most {settings.max_observations}",
        )
    numbers = job.starts * count * len(problem.unknowns)
    if numbers > settings.max_output_values:
        raise InvalidInput(
            "starts",
            found=f"{numbers} derivatives, of {count} observations by "
            f"{len(problem.unknowns)} unknowns from {job.starts} starts",
            expected=f"at most {settings.max_output_values}; ask for fewer starts",
        )
