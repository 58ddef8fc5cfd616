"""What a trained surrogate accepts, and the whole of ``spec.json``."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from spnode_core.spec.base import Spec
from spnode_core.spec.intervals import IntervalsSpec
from spnode_core.spec.surrogate import SurrogateSpec

SCHEMA_VERSION = 1
MOST_MEMBERS = 16
"""Of an ensemble; each costs as much as the first."""


class DomainSpec(Spec):
    """The box that the training data covered; outside it nothing was learned."""

    lower: tuple[float, ...]
    """Smallest value of each state over the training trajectories."""
    upper: tuple[float, ...]
    """Largest value of each state over the training trajectories."""
    parameters_lower: tuple[float, ...] = ()
    parameters_upper: tuple[float, ...] = ()
    controls_lower: tuple[float, ...] = ()
    controls_upper: tuple[float, ...] = ()
    conserved_lower: tuple[float, ...] = ()
    conserved_upper: tuple[float, ...] = ()
    end: PositiveFloat
    """Longest time of the training data, measured from a trajectory's start."""
    neighbours: Annotated[int, Field(ge=0, le=65_536)] = 0
    """How many encoded training samples are kept, to know what is far from them."""


class Signature(Spec):
    """Names, units and sizes that a surrogate accepts and returns."""

    states: tuple[str, ...]
    units: tuple[str, ...] = ()
    """Unit of each state, empty where none was given."""
    time_unit: str = ""
    parameters: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    latent: PositiveInt
    domain: DomainSpec
    intervals: IntervalsSpec | None = None
    """Prediction intervals, where trajectories were held out for validation."""
    members: Annotated[
        int, Field(ge=1, le=MOST_MEMBERS, exclude_if=lambda count: count == 1)
    ] = 1
    """How many members an ensemble has; left out of what is written where it is 1."""

    @model_validator(mode="after")
    def _domain_fits(self) -> Self:
        domain = self.domain
        _check_box("lower and upper", domain.lower, domain.upper, len(self.states))
        for kind in ("parameters", "controls"):
            bounds = (getattr(domain, f"{kind}_{end}") for end in ("lower", "upper"))
            _check_box(kind, *bounds, count=len(getattr(self, kind)))
        if self.units and len(self.units) != len(self.states):
            raise ValueError("units has another length than states")
        if self.intervals and len(self.intervals.kinds) != len(self.states):
            raise ValueError("intervals has another length than states")
        return self


class ArtifactSpec(Spec):
    """``spec.json``: all that is needed to rebuild a surrogate around its leaves."""

    schema_version: Literal[1] = SCHEMA_VERSION
    surrogate: SurrogateSpec
    signature: Signature

    @model_validator(mode="after")
    def _sums_fit(self) -> Self:
        domain, count = self.signature.domain, len(self.surrogate.conserved)
        _check_box("conserved", domain.conserved_lower, domain.conserved_upper, count)
        return self


def _check_box(
    name: str, lower: tuple[float, ...], upper: tuple[float, ...], count: int
) -> None:
    fits = len(lower) == len(upper) == count
    if not fits or any(low > high for low, high in zip(lower, upper, strict=True)):
        raise ValueError(f"domain: {name} must be {count} bounds, the lower ones below")
