"""A light client of an spnode service: httpx and numpy, nothing else.

::

    from spnode_client import Client

    client = Client("http://127.0.0.1:8000", key=...)
    dataset = client.datasets.upload("trajectories.npz")
    version = client.train(dataset, model="robertson").wait()
    x = client.rollout("robertson", x0, times)
"""

from spnode_client.aio import AsyncClient
from spnode_client.aio_jobs import AsyncJob
from spnode_client.calibrations import Calibration, Estimate
from spnode_client.client import Client
from spnode_client.comparisons import Comparison
from spnode_client.errors import (
    ClientError,
    Conflict,
    DeadlinePassed,
    DomainWarning,
    Forbidden,
    InvalidRequest,
    JobFailed,
    NotFound,
    Overloaded,
    ProblemError,
    ServiceFault,
    Unreachable,
)
from spnode_client.fixed import AsyncModel
from spnode_client.jobs import Job
from spnode_client.model import Model
from spnode_client.operations.results import ResultChunk
from spnode_client.records import Dataset, Event, ModelVersion, Rollout
from spnode_client.results import AsyncRolloutResult, RolloutResult
from spnode_client.sweeps import Candidate, Joined, Ranking

__all__ = [
    "AsyncClient",
    "AsyncJob",
    "AsyncModel",
    "AsyncRolloutResult",
    "Calibration",
    "Candidate",
    "Client",
    "ClientError",
    "Comparison",
    "Conflict",
    "Dataset",
    "DeadlinePassed",
    "DomainWarning",
    "Estimate",
    "Event",
    "Forbidden",
    "InvalidRequest",
    "Job",
    "JobFailed",
    "Joined",
    "Model",
    "ModelVersion",
    "NotFound",
    "Overloaded",
    "ProblemError",
    "Ranking",
    "ResultChunk",
    "Rollout",
    "RolloutResult",
    "ServiceFault",
    "Unreachable",
]
