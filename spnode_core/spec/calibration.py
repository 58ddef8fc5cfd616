"""What is to be found from observations: bounds, starts and priors of the unknowns."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from spnode_core.spec.base import Spec

# Bounds further apart than by this factor are searched in decades.
_LOG_FROM = 10.0


class PriorSpec(Spec):
    """What was known of a quantity before: a normal distribution."""

    mean: float
    sd: PositiveFloat
    """Its standard deviation."""


class UnknownSpec(Spec):
    """A quantity that observations are to tell."""

    lower: float
    """It is not below this."""
    upper: float
    """It is not above this."""
    start: float | None = None
    """Where the first search begins; the others begin all over the bounds."""
    prior: PriorSpec | None = None
    scale: Literal["linear", "log"] | None = None
    """In which scale searches and intervals are: by default ``log`` where both bounds
    are positive and the upper one is more than ten times the lower one."""

    @property
    def is_log(self) -> bool:
        """Whether its scale is logarithmic."""
        if self.scale is not None:
            return self.scale == "log"
        return self.lower > 0 and self.upper > _LOG_FROM * self.lower

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.lower < self.upper:
            raise ValueError(
                f"found lower {self.lower!r} and upper {self.upper!r}; expected lower "
                "below upper"
            )
        if self.start is not None and not self.lower <= self.start <= self.upper:
            raise ValueError(
                f"found start {self.start!r}; expected start from {self.lower!r} to "
                f"{self.upper!r}"
            )
        if self.scale == "log" and self.lower <= 0:
            raise ValueError(
                f"found scale 'log' and lower {self.lower!r}; expected lower above 0"
            )
        return self


Named = Annotated[dict[str, UnknownSpec], Field(default_factory=dict)]


class UnknownsSpec(Spec):
    """All that is to be found, by the names that the model has for it."""

    parameters: Named
    x0: Named
    """Initial values of these states."""
    controls: Named
    """Controls, with a value of their own from each control time on."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not (self.parameters or self.x0 or self.controls):
            raise ValueError(
                "nothing is unknown: name a parameter, a state or a control"
            )
        return self
