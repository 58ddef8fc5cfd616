"""What a caller sends to have a rollout: the fields, and JSON or npz to numpy arrays.

::

    JSON bytes -> pydantic (types, unknown fields, finite numbers) -> arrays by name
    npz bytes  -> checked members (sizes, dtypes, no pickle)       -> arrays by name

Both ways give the same :class:`Options` and the same arrays; whether these fit a model
is the business of ``services/rollouts/canonical.py``.
"""

import json
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import TypeAdapter

from services.rollouts.archive import read_archive
from services.rollouts.wire import (
    HvpRequest,
    JacobianOptions,
    JacobianRequest,
    JvpRequest,
    ObjectiveRequest,
    Options,
    RolloutRequest,
    SpacedTimes,
    SteppedTimes,
    VjpRequest,
)
from spnode_core.errors import InvalidInput
from spnode_core.npz import check_text

Arrays = dict[str, np.ndarray]
Operation = Literal["rollout", "jvp", "vjp", "hvp", "jacobian", "objective"]

ARRAYS = ("x0", "parameters", "controls", "control_times")
DIFFERENTIABLE = ("x0", "parameters", "controls")
RANK = {"x0": 1, "parameters": 1, "controls": 2}
"""Number of axes of an input of one row."""
_TANGENTS = tuple(f"tangents.{name}" for name in DIFFERENTIABLE)
_OBJECTIVE = ("observations", "target", "weights", "final_weights")
_KIND = "objective.kind"
# Members of an npz request that are text, not numbers; some of them hold JSON.
_TEXTS = ("model", "on_error", "outputs", "mode", "precision", "sweep")
_MORE_TEXTS: dict[Operation, tuple[str, ...]] = {
    "jacobian": ("inputs",),
    "objective": (_KIND,),
}
_JSON = ("outputs", "inputs", "sweep")
_MOST_TEXT_BYTES = 2**20
# Options that are one number.
_NUMBERS = ("intervals",)
# Options that are true or false.
_FLAGS = ("spread",)
# Arrays that an operation takes beside those of every rollout.
_MORE: dict[Operation, tuple[str, ...]] = {
    "rollout": (),
    "jvp": _TANGENTS,
    "vjp": ("cotangents",),
    "hvp": ("cotangents", *_TANGENTS),
    "jacobian": (),
    "objective": tuple(f"objective.{name}" for name in _OBJECTIVE),
}


REQUESTS: dict[Operation, type[RolloutRequest]] = {
    "rollout": RolloutRequest,
    "jvp": JvpRequest,
    "vjp": VjpRequest,
    "hvp": HvpRequest,
    "jacobian": JacobianRequest,
    "objective": ObjectiveRequest,
}
_ADAPTERS = {name: TypeAdapter(model) for name, model in REQUESTS.items()}
_OPTIONS = TypeAdapter(Options)
_JACOBIAN_OPTIONS = TypeAdapter(JacobianOptions)


class Request(NamedTuple):
    """A request whose types are right, before any model has seen it.

    Args:
        operation: What is to be computed.
        options: What the request says beside its arrays.
        arrays: The arrays given, by name; tangents are ``tangents.x0`` and so on.
        times: The form in which times were given, or None where ``arrays`` has them.
        objective: Kind of the objective, where one is asked for.
    """

    operation: Operation
    options: Options
    arrays: Arrays
    times: SpacedTimes | SteppedTimes | None = None
    objective: str | None = None


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
        add_array(arrays, name, getattr(wire, name))
    if isinstance(wire.times, list):
        add_array(arrays, "times", wire.times)
    else:
        times = wire.times
    if isinstance(wire, JvpRequest | HvpRequest):
        for name in DIFFERENTIABLE:
            add_array(arrays, f"tangents.{name}", getattr(wire.tangents, name))
    if isinstance(wire, VjpRequest):
        add_array(arrays, "cotangents", wire.cotangents)
    kind = None
    if isinstance(wire, ObjectiveRequest):
        kind = wire.objective.kind
        for name in _OBJECTIVE:
            # Null becomes NaN here: an observation that is missing.
            add_array(arrays, f"objective.{name}", getattr(wire.objective, name, None))
    return Request(operation, wire, arrays, times, kind)


def from_npz(operation: Operation, body: bytes, limit_bytes: int) -> Request:
    """Read an ``application/x-npz`` body.

    Numbers are arrays under the names of the JSON fields (``tangents.x0`` for a field
    inside another); ``outputs`` and ``sweep`` (JSON) and the other
    options are text.

    Raises:
        InvalidInput: The container is damaged, pickled, too large, or incomplete.
        pydantic.ValidationError: A text member has a wrong value.
    """
    named = (*_TEXTS, *_MORE_TEXTS.get(operation, ()))
    allowed = ("times", *ARRAYS, *_MORE[operation], *named, *_NUMBERS, *_FLAGS)
    members = read_archive(body, allowed=allowed, limit_bytes=limit_bytes)
    numbers = {
        name: _number(name, members.pop(name)) for name in _NUMBERS if name in members
    }
    texts = {name: _text(name, members.pop(name)) for name in named if name in members}
    kind = _kind(texts.pop(_KIND, None)) if operation == "objective" else None
    flags = {name: _flag(name, members.pop(name)) for name in _FLAGS if name in members}
    fields = texts | numbers | flags
    fields |= {name: _parsed(name, texts[name]) for name in _JSON if name in texts}
    adapter = _JACOBIAN_OPTIONS if operation == "jacobian" else _OPTIONS
    options = adapter.validate_python(fields)
    for name in ("x0", "times", *(n for n in _MORE[operation] if n == "cotangents")):
        if name not in members:
            raise InvalidInput(name, found="nothing", expected="an array")
    arrays = {name: _floats(name, value) for name, value in members.items()}
    return Request(operation, options, arrays, objective=kind)


def _kind(given: str | None) -> str:
    if given not in ("misfit", "quadratic"):
        raise InvalidInput(
            _KIND,
            found="nothing" if given is None else repr(given),
            expected="'misfit' or 'quadratic'",
        )
    return given


def add_array(arrays: Arrays, name: str, value: list[Any] | None) -> None:
    """Add lists of numbers as an array, where there are any.

    Raises:
        InvalidInput: Their lengths differ.
    """
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
    if member.nbytes > _MOST_TEXT_BYTES:
        raise InvalidInput(
            name,
            found=f"text of {member.nbytes} bytes",
            expected=f"at most {_MOST_TEXT_BYTES}",
        )
    check_text(name, member)
    value = member.item()
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _number(name: str, member: np.ndarray) -> float:
    if member.shape != ():
        raise InvalidInput(
            name, found=f"an array of shape {member.shape}", expected="one number"
        )
    return _floats(name, member).item()


def _flag(name: str, member: np.ndarray) -> bool:
    if member.shape != () or member.dtype.kind != "b":
        raise InvalidInput(
            name,
            found=f"an array of shape {member.shape} and dtype {member.dtype}",
            expected="one bool: numpy.savez(..., spread=True)",
        )
    return bool(member)


def _parsed(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            name, found=f"text that is no JSON ({error})", expected="JSON"
        ) from error


def _floats(name: str, member: np.ndarray) -> np.ndarray:
    if member.dtype.kind not in "fiu":
        raise InvalidInput(
            name, found=f"dtype {member.dtype}", expected="float64, or another number"
        )
    array = np.ascontiguousarray(member, np.float64)
    finite = np.isfinite(array)
    if not finite.all():
        place = tuple(int(index) for index in np.argwhere(~finite)[0])
        raise InvalidInput(
            f"{name}[{', '.join(map(str, place))}]" if place else name,
            found=repr(float(array[place])),
            expected="a finite number",
        )
    return array
