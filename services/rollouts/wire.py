"""The bodies of requests for rollouts and derivatives, as their JSON is checked.

Types, unknown fields and numbers that are not finite are refused here; whether arrays
fit a model is the business of ``services/rollouts/canonical.py``. OpenAPI is made from
the same models.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag


def _depth(value: object) -> str:
    depth = 0
    while isinstance(value, (list, tuple)):
        depth += 1
        value = value[0] if value else None
    return str(depth)


def _one_or_two(value: object) -> str:
    lists = (list, tuple)
    is_nested = isinstance(value, lists) and value and isinstance(value[0], lists)
    return "2" if is_nested else "1"


def _times_form(value: object) -> str:
    if isinstance(value, dict):
        return "stepped" if "dt" in value or "steps" in value else "spaced"
    return "list"


Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
# A million wrong numbers are one error: each would cost 1.5 kB and 2 us.
Vector = Annotated[list[Number], Field(fail_fast=True)]
Matrix = Annotated[list[Vector], Field(fail_fast=True)]
Tensor = Annotated[list[Matrix], Field(fail_fast=True)]
StateOrStates = Annotated[
    Annotated[Vector, Tag("1")] | Annotated[Matrix, Tag("2")],
    Discriminator(_one_or_two),
]
Tensors = Annotated[list[Tensor], Field(fail_fast=True)]
MatrixOrTensor = Annotated[
    Annotated[Matrix, Tag("2")] | Annotated[Tensor, Tag("3")],
    Discriminator(lambda value: "3" if _depth(value) >= "3" else "2"),
]
AnyRank = Annotated[
    Annotated[Vector, Tag("1")]
    | Annotated[Matrix, Tag("2")]
    | Annotated[Tensor, Tag("3")]
    | Annotated[Tensors, Tag("4")],
    Discriminator(lambda value: min(max(_depth(value), "1"), "4")),
]

UpToTensor = Annotated[
    Annotated[Vector, Tag("1")]
    | Annotated[Matrix, Tag("2")]
    | Annotated[Tensor, Tag("3")],
    Discriminator(lambda value: min(max(_depth(value), "1"), "3")),
]
Seen = Annotated[list[Number | None], Field(fail_fast=True)]
SeenMatrix = Annotated[list[Seen], Field(fail_fast=True)]
SeenOrMatrix = Annotated[
    Annotated[Seen, Tag("1")] | Annotated[SeenMatrix, Tag("2")],
    Discriminator(_one_or_two),
]
SeenTensor = Annotated[list[SeenMatrix], Field(fail_fast=True)]
Observations = Annotated[
    Annotated[Seen, Tag("1")]
    | Annotated[SeenMatrix, Tag("2")]
    | Annotated[SeenTensor, Tag("3")],
    Discriminator(lambda value: min(max(_depth(value), "1"), "3")),
]
InputName = Literal["x0", "parameters", "controls"]


class Wire(BaseModel):
    """A part of a request: unknown fields are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True
    )


LARGEST_COUNT = 2**53
"""More is beyond any limit, and Python writes no number of thousands of digits."""
Positive = Annotated[int, Field(strict=True, ge=1, le=LARGEST_COUNT)]


class SpacedTimes(Wire):
    """``count`` times from ``start`` to ``stop``, both included."""

    start: Number = 0.0
    stop: Number
    count: Positive
    spacing: Literal["linear", "log"] = "linear"


class SteppedTimes(Wire):
    """The times ``0, dt, 2 dt, ... steps dt``: ``steps + 1`` of them."""

    dt: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
    steps: Positive


Times = Annotated[
    Annotated[Vector, Tag("list")]
    | Annotated[SpacedTimes, Tag("spaced")]
    | Annotated[SteppedTimes, Tag("stepped")],
    Discriminator(_times_form),
]


class Outputs(Wire):
    """Which parts of the answer are wanted."""

    times: Literal["all", "final"] = "all"
    """``final``: only the last time; ``x`` then has no axis of time."""
    states: Annotated[list[str], Field(min_length=1)] | None = None
    """Names of the states to return, in this order; all of them by default."""
    latent: bool = False
    """Whether to return the latent trajectory ``z`` too."""
    domain: bool = False
    """Whether to list what lies outside the training domain, row by row."""


class SpacedValues(Wire):
    """``count`` values from ``start`` to ``stop``, both included."""

    start: Number
    stop: Number
    count: Positive
    spacing: Literal["linear", "log"] = "linear"


Values = Annotated[
    Annotated[Vector, Tag("list")] | Annotated[SpacedValues, Tag("spaced")],
    Discriminator(lambda value: "list" if isinstance(value, list) else "spaced"),
]


class Sweep(Wire):
    """Values to be gone through, by the names of parameters and of initial states."""

    parameters: Annotated[dict[str, Values], Field(default_factory=dict)]
    """Values of a parameter; other parameters stay as the request has them."""
    x0: Annotated[dict[str, Values], Field(default_factory=dict)]
    """Initial values of a state; other states stay as the request has them."""
    combine: Literal["product", "zip"] = "product"
    """``product``: every combination, the last axis fastest; ``zip``: the axes side by
    side."""


class Options(Wire):
    """What a request says beside its arrays."""

    model: Annotated[str, Field(min_length=1, max_length=200)]
    """``name`` (its champion), ``name@alias``, ``name/3`` or ``name@latest``."""
    outputs: Outputs = Outputs()
    on_error: Literal["raise", "mask"] = "raise"
    """``mask``: a row that leaves the finite range is null and described in ``rows``;
    ``raise``: it fails the whole request."""
    mode: Literal["reproducible", "throughput"] = "reproducible"
    """``reproducible``: the bits of a row depend neither on its neighbours nor on the
    size of its batch; ``throughput``: large tiles, more rows a second, equal to that up
    to rounding."""
    precision: Literal["model", "float64"] = "model"
    """``model``: networks compute in the dtype that they were trained in; ``float64``:
    everything does, which is what derivatives exact to 1e-10 need."""
    intervals: Annotated[float, Field(strict=True, gt=0, lt=1)] | None = None
    """Of a rollout only: coverage of prediction intervals ``lower`` to ``upper`` around
    ``x``, 0.5, 0.8, 0.9 or 0.95, where the version has them."""
    spread: Annotated[bool, Field(strict=True)] = False
    """Of a rollout of an ensemble only: the standard deviation over its members beside
    ``x``, their mean. It is no calibrated interval."""
    sweep: Sweep | None = None
    """Axes of values whose grid gives the rows; ``x0`` and ``parameters`` are then one
    vector each, for what is not swept."""


def _example(fields: dict[str, Any]) -> ConfigDict:
    """Shows a request in the description of the API."""
    return ConfigDict(json_schema_extra={"examples": [fields]})


class RolloutRequest(Options):
    """A rollout of one initial state, or of many at once."""

    model_config = _example(
        {
            "model": "robertson",
            "x0": [[1.0, 0.0, 0.0], [0.9, 0.0, 0.1]],
            "times": {
                "start": 1e-5,
                "stop": 1e5,
                "count": 50,
                "spacing": "log",
            },
            "outputs": {"times": "all"},
        }
    )

    x0: StateOrStates
    """One state, or a list of states; numbers in the order of the model's states."""
    times: Times
    """Times of the output, measured from the start of the rollout, each above the one
    before."""
    parameters: StateOrStates | None = None
    """One vector for all rows, or one a row."""
    controls: MatrixOrTensor | None = None
    """Controls held from each control time on, ``(control_time, control)``, or with a
    leading axis of rows."""
    control_times: Vector | None = None
    """Times at which the controls switch; the first is 0."""


class Tangents(Wire):
    """Directions, each of the shape of its input, or many behind a leading axis."""

    x0: AnyRank | None = None
    parameters: AnyRank | None = None
    controls: AnyRank | None = None


class JvpRequest(RolloutRequest):
    """A rollout and its directional derivative (forward mode)."""

    model_config = _example(
        {
            "model": "robertson",
            "x0": [1.0, 0.0, 0.0],
            "times": [1.0, 10.0],
            "tangents": {"x0": [1.0, 0.0, -1.0]},
        }
    )

    tangents: Tangents


class VjpRequest(RolloutRequest):
    """A rollout and the gradient of ``sum(cotangents * x)`` (reverse mode)."""

    model_config = _example(
        {
            "model": "robertson",
            "x0": [1.0, 0.0, 0.0],
            "times": [1.0, 10.0],
            "outputs": {"times": "final"},
            "cotangents": [0.0, 0.0, 1.0],
        }
    )

    cotangents: AnyRank
    """Weights of the answer's ``x``, of its shape; or many at once, with a leading
    axis that the gradients have too."""


class HvpRequest(VjpRequest):
    """The gradient of ``sum(cotangents * x)`` and products of its Hessian."""

    model_config = _example(
        {
            "model": "robertson",
            "x0": [1.0, 0.0, 0.0],
            "times": [1.0, 10.0],
            "outputs": {"times": "final"},
            "cotangents": [0.0, 0.0, 1.0],
            "tangents": {"x0": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]},
        }
    )

    cotangents: UpToTensor
    """Weights of the answer's ``x``, of its shape."""
    tangents: Tangents


class JacobianOptions(Options):
    """What a request for a Jacobian says beside its arrays."""

    inputs: Annotated[list[InputName], Field(min_length=1)] | None = None
    """The inputs to differentiate by; all that the model has by default."""


class JacobianRequest(RolloutRequest, JacobianOptions):
    """A rollout and its derivative by each number of its inputs."""

    model_config = _example(
        {
            "model": "robertson",
            "x0": [1.0, 0.0, 0.0],
            "times": [1.0, 10.0],
            "outputs": {"times": "final"},
            "inputs": ["x0"],
        }
    )


class Misfit(Wire):
    """``sum(weights * (x - observations)**2)`` over times and states."""

    kind: Literal["misfit"]
    observations: Observations
    """What ``x`` is compared with: of its shape, or one for all rows. Null: missing."""
    weights: UpToTensor | None = None
    """At least 0, of the shape of the observations, or one a state; 1 by default."""


class Quadratic(Wire):
    """``sum(weights * (x - target)**2)``, with weights of its own at the last time."""

    kind: Literal["quadratic"]
    target: UpToTensor | None = None
    """One number a state, or of the shape of ``x``; 0 by default."""
    weights: Vector | None = None
    """At least 0, one a state, at every time of the output. By default 1, or 0 where
    ``final_weights`` are given."""
    final_weights: Vector | None = None
    """At least 0, one a state, instead of ``weights`` at the last time."""


class ObjectiveRequest(RolloutRequest):
    """The value of an objective of the rollout, and its gradient."""

    model_config = _example(
        {
            "model": "robertson",
            "x0": [1.0, 0.0, 0.0],
            "times": [1.0, 10.0],
            "objective": {
                "kind": "misfit",
                "observations": [[0.96, 3e-5, 0.04], [0.84, None, 0.16]],
                "weights": [1.0, 1e9, 1.0],
            },
        }
    )

    objective: Annotated[Misfit | Quadratic, Field(discriminator="kind")]
