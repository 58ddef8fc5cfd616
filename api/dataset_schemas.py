"""What the routes of datasets return."""

import math
from datetime import datetime
from typing import Any, Self

import numpy as np

from api.schemas import Out
from services.datasets import DatasetRecord
from services.trajectories import Trajectory


class DatasetOut(Out):
    """A dataset in the store."""

    id: str
    project: str
    name: str | None
    digest: str
    size_bytes: int
    summary: dict[str, Any]
    job_id: str | None
    created_at: datetime

    @classmethod
    def of(cls, record: DatasetRecord) -> Self:
        """The record as it is shown."""
        return cls.model_validate(record, from_attributes=True)


class TrajectoryOut(Out):
    """Samples of one trajectory."""

    number: int
    samples: int
    """How many it has; there may be fewer here."""
    names: list[str]
    """Of the states, in order."""
    parameter_names: list[str]
    control_names: list[str]
    times: list[float]
    """Counted from its start, as a rollout's are."""
    states: list[list[float | None]]
    """``(time, state)``; null where a value is missing."""
    parameters: list[float]
    switches: int
    """How often its controls change; there may be fewer changes here."""
    control_times: list[float]
    controls: list[list[float]]
    """``(control time, control)``, as a rollout takes them."""

    @classmethod
    def of(cls, found: Trajectory) -> Self:
        """The trajectory as it is shown."""
        return cls(
            number=found.number,
            samples=found.samples,
            names=found.names,
            parameter_names=found.parameter_names,
            control_names=found.control_names,
            times=found.times.tolist(),
            states=[[_or_null(value) for value in row] for row in found.states],
            parameters=found.parameters.tolist(),
            switches=found.switches,
            control_times=found.control_times.tolist(),
            controls=np.nan_to_num(found.controls).tolist(),
        )


def _or_null(value: np.floating[Any]) -> float | None:
    return None if math.isnan(value) else float(value)
