"""What callers may ask of the job queue: one model for each kind."""

from typing import Annotated, Literal

from pydantic import Field

from services.calibration.request import CalibrationJob
from services.evaluation.request import EvaluationJob
from services.rollouts.job_request import RolloutJob
from services.sweeps.request import SweepJob
from services.training.request import DatasetRequest, TrainingRequest

JobKind = Literal[
    "training", "dataset", "rollout", "calibration", "evaluation", "sweep"
]
JobRequest = Annotated[
    TrainingRequest
    | DatasetRequest
    | RolloutJob
    | CalibrationJob
    | EvaluationJob
    | SweepJob,
    Field(discriminator="kind"),
]
