"""What is asked of a Tesseract: its JSON as a request, and results as its answer.

::

    {"inputs": {…}}                                            apply, abstract_eval
    … "jac_inputs": ["x0"], "jac_outputs": ["x"]               jacobian
    … "jvp_inputs", "jvp_outputs", "tangent_vector": {"x0"}    jacobian_vector_product
    … "vjp_inputs", "vjp_outputs", "cotangent_vector": {"x"}   vector_jacobian_product
"""

import functools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from api.protocols.tesseract.arrays import brief, read_array, read_shape
from api.protocols.tesseract.leading import AXES, SHARED, Leading, shared_row
from services.errors import Invalid, RolloutFailed
from services.rollouts.answer import Fields
from services.rollouts.request import DIFFERENTIABLE, Arrays, Operation, Request
from services.rollouts.served import Served
from services.rollouts.wire import JacobianOptions, Options, Outputs
from services.rollouts.work import Limits
from spnode_core.errors import InvalidInput, one_of

OUTPUT = "x"
"""The name of what is computed."""
OPERATIONS: dict[str, tuple[Operation, str]] = {
    "apply": ("rollout", ""),
    "jacobian": ("jacobian", "jac"),
    "jacobian_vector_product": ("jvp", "jvp"),
    "vector_jacobian_product": ("vjp", "vjp"),
}
"""By endpoint: what is computed, and how the names of its fields begin."""
CHOICES: dict[str, tuple[Any, ...]] = {
    "precision": ("model", "float64"),
    "mode": ("reproducible", "throughput"),
    "final": (False, True),
}
"""Inputs that are no arrays, and what they may be; the first by default."""
_VECTORS = {"jvp": "tangent_vector", "vjp": "cotangent_vector"}


@dataclass(frozen=True)
class Call:
    """A body that fits a version.

    Args:
        request: What is to be computed.
        leading: The shapes.
        asked: The inputs to differentiate by, in the order in which they were sent.
        dtypes: What the inputs consisted of.
    """

    request: Request
    leading: Leading
    asked: tuple[str, ...] = ()
    dtypes: dict[str, str] = field(default_factory=dict)

    def answer(self, fields: Fields) -> dict[str, Any]:
        """Results as Tesseract names and shapes them; arrays stay numpy arrays.

        Raises:
            InvalidInput: A gradient does not fit into the dtype of its input.
        """
        operation, leading = self.request.operation, self.leading
        if operation == "rollout":
            return {OUTPUT: fields["x"].reshape(leading.x)}
        if operation == "jvp":
            return {OUTPUT: fields["jvp"].reshape(leading.x)}
        found = fields[operation]
        if operation == "jacobian":
            blocks = {name: leading.jacobian(name, found[name]) for name in self.asked}
            return {OUTPUT: blocks}
        return {
            name: self._as_sent(name, leading.gradient(name, found[name]))
            for name in self.asked
        }

    def renamed(self, error: InvalidInput | RolloutFailed) -> InvalidInput:
        """An error of the computation, with the places that the caller knows."""
        if isinstance(error, RolloutFailed):
            row = np.unravel_index(error.row, self.leading.shape or (1,))
            where = f"row {tuple(map(int, row))}" if self.leading.shape else "it"
            return InvalidInput(
                "inputs",
                found=f"{where} is not finite from time {error.time!r} on",
                expected="trajectories that stay finite",
            )
        place = error.field
        if place.startswith("inputs"):
            place = "jac_inputs"
        elif place.startswith("tangents"):
            place = place.replace("tangents", "tangent_vector", 1)
        elif place.startswith("cotangents"):
            place = place.replace("cotangents", f"cotangent_vector.{OUTPUT}", 1)
        else:
            place = f"inputs.{place}"
        return InvalidInput(place, found=error.found, expected=error.expected)

    def _as_sent(self, name: str, gradient: np.ndarray) -> np.ndarray:
        """A gradient in the dtype of its input: JAX takes no other."""
        dtype = self.dtypes[name]
        if dtype not in ("float16", "float32"):
            return gradient
        if np.abs(gradient).max() > np.finfo(dtype).max:
            raise InvalidInput(
                f"inputs.{name}",
                found=f"{dtype}, which is too narrow for the gradient",
                expected="float64",
            )
        return gradient.astype(dtype)


def read_object(body: bytes) -> dict[str, Any]:
    """A body as an object.

    Raises:
        Invalid: It is none.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Invalid("", found=f"no JSON: {error}", expected="an object") from error
    if not isinstance(value, dict):
        raise Invalid("", found=f"a {type(value).__name__}", expected="an object")
    return value


def read_call(endpoint: str, body: bytes, served: Served, limits: Limits) -> Call:
    """Read the body of a call and check it against a version.

    Raises:
        Invalid: The body is no JSON.
        InvalidInput: A name, a shape or a value that the version does not take.
    """
    operation, prefix = OPERATIONS[endpoint]
    lists = (f"{prefix}_inputs", f"{prefix}_outputs") if prefix else ()
    vector = _VECTORS.get(prefix)
    value = read_object(body)
    _check_fields("", value, ("inputs", *lists, *([vector] if vector else ())))
    inputs, options = _split(value)
    sent: Arrays = {}
    dtypes: dict[str, str] = {}
    for name in inputs:
        sent[name], dtypes[name] = read_array(f"inputs.{name}", inputs[name])
    shapes = {name: array.shape for name, array in sent.items()}
    leading = Leading.of(shapes, served.signature, final=options["final"])
    _check_size(leading, limits)
    asked = _asked(value, lists, tuple(sent)) if lists else ()
    if operation == "jacobian":
        _check_jacobian(leading, asked, limits)
    arrays = {
        name: shared_row(name, array) if name in SHARED else leading.by_row(name, array)
        for name, array in sent.items()
    }
    if vector:
        arrays |= _directions(value, vector, leading, asked)
    reference = f"{served.model}/{served.version}"
    chosen = _options(
        reference,
        options["final"],
        options["precision"],
        options["mode"],
        asked if operation == "jacobian" else (),
    )
    return Call(Request(operation, chosen, arrays), leading, asked, dtypes)


def evaluated(body: bytes, served: Served, limits: Limits) -> dict[str, Any]:
    """What ``abstract_eval`` answers: the shape of ``x``.

    Raises:
        Invalid: The body is no JSON.
        InvalidInput: A name or a shape that the version does not take.
    """
    value = read_object(body)
    _check_fields("", value, ("inputs",))
    inputs, options = _split(value)
    shapes = {name: read_shape(f"inputs.{name}", inputs[name]) for name in inputs}
    leading = Leading.of(shapes, served.signature, final=options["final"])
    _check_size(leading, limits)
    return {OUTPUT: {"shape": list(leading.x), "dtype": "float64"}}


def _split(value: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays and the options of ``inputs``."""
    inputs = _object("inputs", value.get("inputs"))
    _check_fields("inputs.", inputs, (*AXES, *CHOICES))
    options = {name: allowed[0] for name, allowed in CHOICES.items()}
    for name, allowed in CHOICES.items():
        given = inputs.get(name)
        if given is None:
            continue
        if not any(type(given) is type(each) and given == each for each in allowed):
            raise InvalidInput(
                f"inputs.{name}",
                found=brief(given),
                expected=f"one of {orjson.dumps(allowed).decode()}",
            )
        options[name] = given
    arrays = {name: inputs[name] for name in AXES if inputs.get(name) is not None}
    return arrays, options


def _object(place: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        found = "nothing" if value is None else f"a {type(value).__name__}"
        raise InvalidInput(place, found=found, expected="an object")
    return value


def _check_fields(prefix: str, value: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in value:
        if name not in names:
            raise InvalidInput(
                f"{prefix}{name[:60]}",
                found="a field that is not known here",
                expected=one_of(name, names),
            )


def _check_size(leading: Leading, limits: Limits) -> None:
    """Refuse before anything is repeated."""
    if leading.rows > limits.rows:
        raise InvalidInput(
            "inputs.x0",
            found=f"leading axes {leading.shape}: {leading.rows} rows",
            expected=f"at most {limits.rows} in a request",
        )
    values = math.prod(leading.x)
    if values > limits.output_values:
        raise InvalidInput(
            "inputs.times",
            found=f"an answer of shape {leading.x}: {values} numbers",
            expected=f"at most {limits.output_values}; ask for fewer rows or times",
        )


def _check_jacobian(leading: Leading, asked: tuple[str, ...], limits: Limits) -> None:
    inputs = sum(math.prod(leading.given[name]) for name in asked)
    values = math.prod(leading.x) * inputs
    if values > limits.output_values:
        raise InvalidInput(
            "jac_inputs",
            found=f"{values} numbers: x of shape {leading.x} by {inputs} of inputs",
            expected=f"at most {limits.output_values}; ask for fewer rows, times or "
            "inputs, or for products by jvp or vjp",
        )


def _asked(
    value: dict[str, Any], lists: tuple[str, str], given: tuple[str, ...]
) -> tuple[str, ...]:
    """The inputs to differentiate by."""
    inputs, outputs = lists
    can = tuple(name for name in DIFFERENTIABLE if name in given)
    _names(value, outputs, (OUTPUT,))
    return _names(value, inputs, can)


def _names(
    value: dict[str, Any], place: str, allowed: tuple[str, ...]
) -> tuple[str, ...]:
    given = value.get(place)
    expected = f"a list of {', '.join(allowed)}, at least one of them"
    if not isinstance(given, list) or not given:
        found = "nothing" if not given else f"a {type(given).__name__}"
        raise InvalidInput(place, found=found, expected=expected)
    for index, name in enumerate(given):
        if name not in allowed:
            raise InvalidInput(
                f"{place}[{index}]", found=brief(name), expected=expected
            )
    return tuple(dict.fromkeys(given))


def _directions(
    value: dict[str, Any], place: str, leading: Leading, asked: tuple[str, ...]
) -> Arrays:
    """Tangents of the inputs, or cotangents of ``x``, by row."""
    is_forward = place == "tangent_vector"
    names = asked if is_forward else (OUTPUT,)
    vector = _object(place, value.get(place))
    _check_fields(f"{place}.", vector, names)
    found: Arrays = {}
    for name in names:
        array, _ = read_array(f"{place}.{name}", vector.get(name))
        shape = leading.given[name] if is_forward else leading.x
        fits = array.shape == shape if is_forward else _repeats(array.shape, shape)
        if not fits:
            raise InvalidInput(
                f"{place}.{name}",
                found=f"an array of shape {array.shape}",
                expected=f"the shape of {name}, {shape}",
            )
        if is_forward:
            found[f"tangents.{name}"] = leading.by_row(name, array)
        else:
            found["cotangents"] = leading.outputs_by_row(array)
    return found


def _repeats(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Whether numpy would repeat one shape to another of as many axes."""
    pairs = zip(shape, to, strict=False)
    return len(shape) == len(to) and all(one in (1, other) for one, other in pairs)


@functools.lru_cache(maxsize=1024)
def _options(
    reference: str, final: bool, precision: Any, mode: Any, asked: tuple[Any, ...]
) -> Options:
    outputs = Outputs(times="final" if final else "all")
    if not asked:
        return Options(model=reference, outputs=outputs, precision=precision, mode=mode)
    return JacobianOptions(
        model=reference,
        outputs=outputs,
        precision=precision,
        mode=mode,
        inputs=list(asked),
    )
