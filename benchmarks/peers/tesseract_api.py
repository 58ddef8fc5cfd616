"""The surrogate as a Tesseract: ``tesseract-runtime serve`` finds this file."""

from pydantic import BaseModel
from tesseract_core.runtime import Array, Float64

from benchmarks.peers.served import Served

_served = Served()


class InputSchema(BaseModel):
    """Initial states."""

    x0: Array[(None, 3), Float64]  # pyright: ignore


class OutputSchema(BaseModel):
    """Trajectories."""

    x: Array[(None, None, 3), Float64]  # pyright: ignore


def apply(inputs: InputSchema) -> OutputSchema:
    """Roll out."""
    return OutputSchema(x=_served.rollout(inputs.x0))
