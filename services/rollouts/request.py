"""What a caller sends to have a rollout: the fields, and JSON or npz to numpy arrays.

::

    JSON bytes -> pydantic (types, unknown fields, finite numbers) -> arrays by name
    npz bytes  -> checked members (sizes, dtypes, no pickle)       -> arrays by name

Both ways give the same :class:`Options` and the same arrays; whether these fit a model
is the business of ``services/rollouts/canonical.py``.
"""

import io
import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
)

from spnode_core.errors import InvalidInput
from spnode_core.npz import read_npz

Arrays = dict[str, np.ndarray]
Operation = Literal["rollout", "jvp", "vjp"]

ARRAYS = ("x0", "parameters", "controls", "control_times")
DIFFERENTIABLE = ("x0", "parameters", "controls")
# Members of an npz request that are text, not numbers.
_TEXTS = ("model", "on_error", "outputs", "mode", "precision")


def _depth(value: object) -> str:
    depth = 0
    while isinstance(value, (list, tuple)):
        depth += 1
        value = value[0] if value else None
    return str(depth)


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
    Discriminator(lambda value: "2" if _depth(value) >= "2" else "1"),
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


class Wire(BaseModel):
    """A part of a request: unknown fields are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True
    )


class SpacedTimes(Wire):
    """``count`` times from ``start`` to ``stop``, both included."""

    start: Number = 0.0
    stop: Number
    count: Annotated[int, Field(strict=True, ge=1)]
    spacing: Literal["linear", "log"] = "linear"


class SteppedTimes(Wire):
    """The times ``0, dt, 2 dt, ... steps dt``: ``steps + 1`` of them."""

    dt: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
    steps: Annotated[int, Field(strict=True, ge=1)]


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


class RolloutRequest(Options):
    """A rollout of one initial state, or of many at once."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
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
            ]
        }
    )

    x0: StateOrStates
    """One state, or a list of states; numbers in the order of the model's states."""
    times: Times
    """Times of the output, measured from the start of the rollout."""
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

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "robertson",
                    "x0": [1.0, 0.0, 0.0],
                    "times": [1.0, 10.0],
                    "tangents": {"x0": [1.0, 0.0, -1.0]},
                }
            ]
        }
    )

    tangents: Tangents


class VjpRequest(RolloutRequest):
    """A rollout and the gradient of ``sum(cotangents * x)`` (reverse mode)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "robertson",
                    "x0": [1.0, 0.0, 0.0],
                    "times": [1.0, 10.0],
                    "outputs": {"times": "final"},
                    "cotangents": [0.0, 0.0, 1.0],
                }
            ]
        }
    )

    cotangents: AnyRank
    """Weights of the answer's ``x``, of its shape; or many at once, with a leading
    axis that the gradients have too."""


REQUESTS: dict[Operation, type[RolloutRequest]] = {
    "rollout": RolloutRequest,
    "jvp": JvpRequest,
    "vjp": VjpRequest,
}
_ADAPTERS = {name: TypeAdapter(model) for name, model in REQUESTS.items()}
_OPTIONS = TypeAdapter(Options)


@dataclass(frozen=True)
class Request:
    """A request whose types are right, before any model has seen it.

    Args:
        operation: What is to be computed.
        options: What the request says beside its arrays.
        arrays: The arrays given, by name; tangents are ``tangents.x0`` and so on.
        times: The form in which times were given, or None where ``arrays`` has them.
    """

    operation: Operation
    options: Options
    arrays: Arrays
    times: SpacedTimes | SteppedTimes | None = None


def from_json(operation: Operation, body: bytes) -> Request:
    """Read a JSON body.

    Raises:
        pydantic.ValidationError: The body is no JSON, or its fields are wrong.
        InvalidInput: A list of lists whose rows differ in length.
    """
    wire = _ADAPTERS[operation].validate_json(body)
    arrays: Arrays = {}
    times = None
    for name in ARRAYS:
        _add(arrays, name, getattr(wire, name))
    if isinstance(wire.times, list):
        _add(arrays, "times", wire.times)
    else:
        times = wire.times
    if isinstance(wire, JvpRequest):
        for name in DIFFERENTIABLE:
            _add(arrays, f"tangents.{name}", getattr(wire.tangents, name))
    if isinstance(wire, VjpRequest):
        _add(arrays, "cotangents", wire.cotangents)
    return Request(operation, wire, arrays, times)


def from_npz(operation: Operation, body: bytes, limit_bytes: int) -> Request:
    """Read an ``application/x-npz`` body.

    Numbers are arrays under the names of the JSON fields (``tangents.x0`` for a field
    inside another); ``outputs`` (JSON) and the other options are text.

    Raises:
        InvalidInput: The container is damaged, pickled, too large, or incomplete.
        pydantic.ValidationError: A text member has a wrong value.
    """
    numeric = _numeric_members(operation)
    members = read_npz(
        io.BytesIO(body), allowed=(*_TEXTS, *numeric), limit_bytes=limit_bytes
    )
    texts = {name: _text(name, members.pop(name)) for name in _TEXTS if name in members}
    options = _OPTIONS.validate_python(
        texts
        | {name: _parsed(name, texts[name]) for name in ("outputs",) if name in texts}
    )
    for name in ("x0", "times", *(("cotangents",) if operation == "vjp" else ())):
        if name not in members:
            raise InvalidInput(name, found="nothing", expected="an array")
    arrays = {name: _floats(name, value) for name, value in members.items()}
    return Request(operation, options, arrays)


def _numeric_members(operation: Operation) -> tuple[str, ...]:
    more = {
        "rollout": (),
        "jvp": tuple(f"tangents.{name}" for name in DIFFERENTIABLE),
        "vjp": ("cotangents",),
    }
    return ("times", *ARRAYS, *more[operation])


def _add(arrays: Arrays, name: str, value: list[Any] | None) -> None:
    if value is None:
        return
    try:
        arrays[name] = np.array(value, np.float64)
    except ValueError:
        raise _ragged(name, value) from None


def _ragged(name: str, value: list[Any], place: tuple[int, ...] = ()) -> InvalidInput:
    """The error that names the first list whose length differs from its sisters'."""
    for index, item in enumerate(value):
        if len(item) != len(value[0]):
            where = ", ".join(map(str, (*place, index)))
            return InvalidInput(
                f"{name}[{where}]",
                found=f"{len(item)} numbers",
                expected=f"{len(value[0])}, as in the list before it",
            )
    for index, item in enumerate(value):
        if isinstance(item, list) and item and isinstance(item[0], list):
            return _ragged(name, item, (*place, index))
    return InvalidInput(name, found="uneven lists", expected="lists of equal length")


def _text(name: str, member: np.ndarray) -> str:
    if member.shape != () or member.dtype.kind not in "US":
        raise InvalidInput(
            name,
            found=f"an array of shape {member.shape} and dtype {member.dtype}",
            expected="text: numpy.savez(..., model='robertson')",
        )
    value = member.item()
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _parsed(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInput(
            name, found=f"text that is no JSON ({error})", expected="JSON"
        ) from error


def _floats(name: str, member: np.ndarray) -> np.ndarray:
    if member.dtype.kind not in "fiu":
        raise InvalidInput(
            name, found=f"dtype {member.dtype}", expected="float64, or another number"
        )
    array = np.ascontiguousarray(member, np.float64)
    bad = np.argwhere(~np.isfinite(array))
    if bad.size:
        place = tuple(int(index) for index in bad[0])
        raise InvalidInput(
            f"{name}[{', '.join(map(str, place))}]" if place else name,
            found=repr(float(array[place])),
            expected="a finite number",
        )
    return array
