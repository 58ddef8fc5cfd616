"""The ``config`` of UM-Bridge's calls: which function of a model they are about."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from services.rollouts.wire import Number, Observations, Times, Vector, Wire

Open = Annotated[list[Number | None], Field(min_length=1, fail_fast=True)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Noises = Annotated[list[Positive], Field(min_length=1, fail_fast=True)]
Noise = Annotated[
    Annotated[Positive, Tag("number")] | Annotated[Noises, Tag("list")],
    Discriminator(lambda value: "list" if isinstance(value, list) else "number"),
]


class Fixed(Wire):
    """Numbers that are no inputs; null where one stays an input."""

    x0: Open | None = None
    """The initial state."""
    parameters: Open | None = None
    """The parameters."""
    controls: Open | None = None
    """The controls, one control time after the other."""


class Config(Wire):
    """Without any of these, the state at the longest time of the training data."""

    t1: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] | None = None
    """The output is the state at this time, 0 or later."""
    times: Times | None = None
    """The output is the trajectory at these times, one state after the other: a list,
    or spaced or stepped times as in `/v1/rollout`."""
    states: Annotated[list[str], Field(min_length=1)] | None = None
    """Names of the states in the output, in this order; all of them by default."""
    control_times: Vector | None = None
    """Times at which the controls switch, the first one 0; 0 alone by default."""
    fixed: Fixed = Fixed()
    """What is no input, by `x0`, `parameters` and `controls`."""
    packed: Annotated[bool, Field(strict=True)] = False
    """All inputs as one vector, one behind the other."""
    observations: Observations | None = None
    """The output is the log-likelihood of these, of the shape of the states that it
    would be otherwise; null where one is missing. Needs `noise`."""
    noise: Noise | None = None
    """Standard deviation of the observations, one for all or one a state."""
    precision: Literal["model", "float64"] = "model"
    """`float64`: networks compute in float64 too."""


class Body(Wire):
    """Gives places in a config their whole name."""

    config: Config


def read_config(given: dict[str, Any]) -> Config:
    """Check what was sent as ``config``.

    Raises:
        pydantic.ValidationError: A field is unknown or of a wrong type.
    """
    return Body.model_validate({"config": given}).config
