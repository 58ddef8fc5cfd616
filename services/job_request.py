"""What callers may ask of the job queue: one model for each kind."""

from typing import Annotated, Literal

from pydantic import Field

from services.rollouts.job_request import RolloutJob
from services.training.request import DatasetRequest, TrainingRequest

JobKind = Literal["training", "dataset", "rollout"]
JobRequest = Annotated[
    TrainingRequest | DatasetRequest | RolloutJob, Field(discriminator="kind")
]
