"""The body of an inference request, to numpy arrays and a request of ours.

::

    JSON: all of the body, or its first bytes  -> Envelope
    numbers in it, or raw tensors behind it    -> float64 arrays by name -> Request
"""

import functools
import math
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, TypeAdapter

from api.middleware import TENSORS
from services.errors import Invalid
from services.rollouts.request import RANK, Arrays, Request, add_array
from services.rollouts.served import Served, are_all
from services.rollouts.wire import (
    LARGEST_COUNT,
    AnyRank,
    Number,
    Options,
    Outputs,
    Positive,
    SpacedTimes,
    SteppedTimes,
    Wire,
)
from spnode_core.errors import InvalidInput

HEADER = TENSORS.title()
"""As it is written to people."""
Datatype = Literal["FP64", "FP32"]
DTYPES: dict[Datatype, np.dtype] = {"FP64": np.dtype("<f8"), "FP32": np.dtype("<f4")}
_INTERVALS = ("lower", "upper")
OUTPUTS = ("x", "times", "inside", *_INTERVALS, "spread", "latent")
"""Everything that can be asked for, of some version."""
_USUAL_COVERAGE = 0.9
_SPACED = ("start", "stop", "count", "spacing")
_STEPPED = ("dt", "steps")
# In the words of this door, the fields that are other things in a request of ours.
_PARAMETERS = {"intervals": "parameters.intervals", "spread": "outputs.spread"}
Name = Annotated[str, Field(max_length=200)]
Flag = Annotated[bool, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=0, le=LARGEST_COUNT)]


class InputParameters(Wire):
    """What an input says beside its numbers."""

    binary_data_size: Count | None = None
    """Bytes of it behind the JSON."""
    content_type: Name | None = None
    """A hint of some clients to their own servers; it changes nothing."""


class InputTensor(Wire):
    """One input."""

    name: Literal["x0", "parameters", "controls", "control_times", "times"]
    shape: Annotated[list[Positive], Field(max_length=8)]
    datatype: Datatype
    parameters: InputParameters | None = None
    data: AnyRank | None = None
    """Numbers, flat or in lists of its shape."""


class OutputParameters(Wire):
    """How an output is wanted."""

    binary_data: Flag | None = None


class OutputTensor(Wire):
    """One output that is asked for."""

    name: Name
    parameters: OutputParameters | None = None


class Parameters(Wire):
    """What a request says beside its inputs."""

    binary_data_output: Flag = False
    start: Number | None = None
    stop: Number | None = None
    count: Positive | None = None
    spacing: Literal["linear", "log"] | None = None
    dt: Annotated[Number, Field(gt=0)] | None = None
    steps: Positive | None = None
    precision: Literal["model", "float64"] = "model"
    mode: Literal["reproducible", "throughput"] = "reproducible"
    intervals: Annotated[Number, Field(gt=0, lt=1)] | None = None
    datatype: Datatype = "FP64"
    timeout: Count = 0
    """Microseconds after which the answer is of no use; 0: the usual limit."""
    priority: Count = 0
    """It changes nothing: requests take turns."""
    content_type: Name | None = None


class Envelope(Wire):
    """The JSON of an inference request."""

    id: Annotated[str, Field(max_length=1000)] | None = None
    model_name: Name | None = None
    model_version: Name | None = None
    parameters: Parameters | None = None
    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=5)]
    outputs: Annotated[list[OutputTensor], Field(max_length=len(OUTPUTS))] | None = None

    @property
    def options(self) -> Parameters:
        """Its parameters, those that it left out included."""
        return self.parameters or _NONE


_NONE = Parameters()
_ENVELOPE = TypeAdapter(Envelope)


def read(body: bytes, json_bytes: str | None) -> tuple[Envelope, Arrays]:
    """Read a body.

    Args:
        body: Not compressed any more.
        json_bytes: The header of that name, None without.

    Raises:
        pydantic.ValidationError: It is no JSON, or its fields are wrong.
        InvalidInput: A tensor is not what its shape and datatype say.
        Invalid: The lengths of its parts do not agree.
    """
    end = json_end(json_bytes, len(body))
    envelope = _ENVELOPE.validate_json(body[:end])
    raw = memoryview(body)[end:]
    arrays: Arrays = {}
    for tensor in envelope.inputs:
        field = f"inputs.{tensor.name}"
        if tensor.name in arrays:
            raise InvalidInput(field, found="it twice", expected="it once")
        size = tensor.parameters.binary_data_size if tensor.parameters else None
        if size is None:
            numbers = _from_json(tensor, field)
        else:
            numbers = _from_raw(tensor, field, size, raw)
            raw = raw[size:]
        arrays[tensor.name] = _finite(numbers.reshape(tensor.shape), field)
    if len(raw):
        raise Invalid(
            HEADER,
            found=f"{len(raw)} bytes after the last input",
            expected="as many bytes behind the JSON as binary_data_size of its inputs",
        )
    _check_outputs(envelope)
    return envelope, arrays


def request_of(envelope: Envelope, arrays: Arrays, served: Served) -> Request:
    """A request of ours, whose model is the very version that was looked up.

    Raises:
        InvalidInput: Its times are given twice, or not in full.
    """
    options, wanted = envelope.options, {each.name for each in envelope.outputs or ()}
    coverage = options.intervals
    known = served.signature.intervals
    if coverage is None and wanted.intersection(_INTERVALS):
        # Without any it is refused, and told why, like a coverage that was given.
        largest = max(known.coverages) if known else _USUAL_COVERAGE
        coverage = min(_USUAL_COVERAGE, largest)
    arrays, times = _shared(arrays, served), _times(options, arrays)
    if times is None and "times" not in arrays:
        arrays["times"] = np.array([served.signature.domain.end])
    chosen = _chosen(
        f"{served.model}/{served.version}",
        options.mode,
        options.precision,
        coverage,
        latent="latent" in wanted,
        spread="spread" in wanted,
    )
    return Request("rollout", chosen, arrays, times)


# Most callers ask for the same again.
@functools.lru_cache(maxsize=1024)
def _chosen(
    model: str,
    mode: Literal["reproducible", "throughput"],
    precision: Literal["model", "float64"],
    coverage: float | None,
    *,
    latent: bool,
    spread: bool,
) -> Options:
    return Options(
        model=model,
        outputs=Outputs(latent=latent),
        mode=mode,
        precision=precision,
        intervals=coverage,
        spread=spread,
    )


def in_its_words(error: InvalidInput) -> InvalidInput:
    """An error about a request of ours, with the place where this door has it."""
    head, dot, rest = error.field.partition(".")
    name = head.partition("[")[0]
    if head == "times" and dot:
        field = f"parameters.{rest}"
    elif head == "outputs":
        field = "outputs.latent"
    elif name in (*RANK, "times", "control_times"):
        field = f"inputs.{error.field}"
    else:
        field = _PARAMETERS.get(head, error.field)
    return InvalidInput(field, found=error.found, expected=error.expected)


def json_end(given: str | None, size: int) -> int:
    """Where the JSON of a body ends.

    Args:
        given: The header of that name, None without.
        size: Of the body.

    Raises:
        Invalid: The header is no such number.
    """
    if given is None:
        return size
    if given.isascii() and given.isdecimal() and len(given) < 20:
        end = int(given)
        if 0 < end <= size:
            return end
    raise Invalid(
        HEADER,
        found=repr(given[:40]),
        expected=f"how many bytes of the body are JSON, at most {size}",
    )


def _from_json(tensor: InputTensor, field: str) -> np.ndarray:
    if tensor.data is None:
        raise InvalidInput(
            field, found="no data", expected="data, or binary_data_size and raw bytes"
        )
    kept: Arrays = {}
    add_array(kept, f"{field}.data", tensor.data)
    (numbers,) = kept.values()
    count, shape = math.prod(tensor.shape), tuple(tensor.shape)
    if numbers.size != count or (numbers.ndim > 1 and numbers.shape != shape):
        raise InvalidInput(
            f"{field}.data",
            found=f"{numbers.size} numbers in shape {list(numbers.shape)}",
            expected=f"{count} numbers for shape {tensor.shape}",
        )
    if tensor.datatype == "FP32":
        with np.errstate(over="ignore"):
            return numbers.astype(np.float32).astype(np.float64)
    return numbers


def _from_raw(
    tensor: InputTensor, field: str, size: int, raw: memoryview
) -> np.ndarray:
    if tensor.data is not None:
        raise InvalidInput(
            field, found="data and binary_data_size", expected="one of them"
        )
    dtype = DTYPES[tensor.datatype]
    wanted = math.prod(tensor.shape) * dtype.itemsize
    if size != wanted:
        raise InvalidInput(
            f"{field}.parameters.binary_data_size",
            found=f"{size}",
            expected=f"{wanted} for {tensor.datatype} of shape {tensor.shape}",
        )
    if len(raw) < size:
        raise InvalidInput(
            f"{field}.parameters.binary_data_size",
            found=f"{len(raw)} bytes left in the body, by {HEADER}",
            expected=f"{size}",
        )
    # A copy: bytes at any place in a body need not be aligned.
    return np.frombuffer(raw[:size], dtype).astype(np.float64)


def _finite(array: np.ndarray, field: str) -> np.ndarray:
    finite = np.isfinite(array)
    if are_all(finite):
        return array
    place = tuple(int(index) for index in np.argwhere(~finite)[0])
    raise InvalidInput(
        f"{field}[{', '.join(map(str, place))}]" if place else field,
        found=repr(float(array[place])),
        expected="a finite number",
    )


def _check_outputs(envelope: Envelope) -> None:
    seen: set[str] = set()
    for place, each in enumerate(envelope.outputs or ()):
        if each.name not in OUTPUTS or each.name in seen:
            again = " again" if each.name in seen else ""
            raise InvalidInput(
                f"outputs[{place}].name",
                found=f"{each.name!r}{again}",
                expected=f"one of {', '.join(OUTPUTS)}, each once",
            )
        seen.add(each.name)


def _shared(arrays: Arrays, served: Served) -> Arrays:
    """What has one row where others have many is the same for all of them."""
    signature = served.signature
    # What the version does not take stays as it was sent, to be refused so.
    taken = {
        "x0": signature.states,
        "parameters": signature.parameters,
        "controls": signature.controls,
    }
    counts = {
        name: len(arrays[name])
        for name, rank in RANK.items()
        if taken[name] and name in arrays and arrays[name].ndim == rank + 1
    }
    if max(counts.values(), default=1) == 1:
        return arrays
    alone = {name: arrays[name][0] for name, count in counts.items() if count == 1}
    return arrays | alone


def _times(options: Parameters, arrays: Arrays) -> SpacedTimes | SteppedTimes | None:
    given = [name for name in _SPACED + _STEPPED if getattr(options, name) is not None]
    if not given:
        return None
    stepped = any(name in _STEPPED for name in given)
    allowed, needed = (_STEPPED, _STEPPED) if stepped else (_SPACED, ("stop", "count"))
    for name in given:
        if name not in allowed or "times" in arrays:
            others = "inputs.times" if "times" in arrays else " and ".join(allowed)
            raise InvalidInput(
                f"parameters.{name}",
                found=f"it beside {others}",
                expected="inputs.times, or stop and count (start, spacing), or dt and "
                "steps",
            )
    for name in needed:
        if name not in given:
            raise InvalidInput(
                f"parameters.{name}",
                found="nothing",
                expected=f"it beside {', '.join(given)}",
            )
    fields = {name: getattr(options, name) for name in given}
    return SteppedTimes(**fields) if stepped else SpacedTimes(**fields)
