"""Arrays as Tesseract writes them, and which of its encodings an answer has.

::

    {"shape": [2], "dtype": "float64", "data": {"buffer": "…", "encoding": "base64"}}
    {"shape": [2], "dtype": "float64", "data": {"buffer": [1, 2], "encoding": "json"}}
    [1, 2]                                      by hand

Buffers are little-endian and in C order. What comes is made float64 and is finite; what
goes carries ``object_type``, by which its clients know an array.
"""

import base64
import functools
import math
import reprlib
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from services.rollouts.request import add_array
from services.rollouts.rows import floats
from services.rollouts.wire import Number
from spnode_core.errors import InvalidInput, one_of

FORMATS = ("json", "json+base64")
"""What an answer may be encoded as."""
DTYPES = (
    *(f"float{bits}" for bits in (16, 32, 64)),
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
)
"""What a sent array may consist of."""
_MOST_AXES = 8
_ENCODINGS = ("base64", "json", "raw")
# Ranges of Accept that name no format, and what they mean: clients of Tesseract ask for
# the second, and read base64 faster; people with curl ask for the first.
_ANY = {"*/*": "json", "application/*": "json+base64"}
_Shape = tuple[int, ...]


def format_of(accept: str) -> str | None:
    """The encoding that an Accept header asks for, None where it is none of ours."""
    ranges = [_media_range(each) for each in accept.split(",") if each.strip()]
    if not ranges:
        return _ANY["*/*"]
    for kind, parameters in sorted(ranges, key=lambda each: -_quality(each[1])):
        wanted = _ANY.get(kind, kind.removeprefix("application/"))
        plain = {parameters.get(n, "none") for n in ("gpu_transport", "compression")}
        if wanted in FORMATS and plain == {"none"} and _quality(parameters) > 0:
            return wanted
    return None


def read_array(field: str, value: object) -> tuple[np.ndarray, str]:
    """An array of finite float64, and the dtype that it was sent in.

    Args:
        field: What it is called, for errors.
        value: As it was in the JSON.

    Raises:
        InvalidInput: It is no such array.
    """
    if not isinstance(value, dict):
        return _from_lists(field, value), "float64"
    shape, dtype = _described(field, value)
    if 0 in shape:
        raise InvalidInput(field, found=f"shape {list(shape)}", expected="numbers")
    data = value.get("data")
    if not isinstance(data, dict):
        raise InvalidInput(
            f"{field}.data",
            found=brief(data),
            expected="an object with buffer and encoding",
        )
    _known(f"{field}.data", data, ("buffer", "encoding", "compression"))
    if data.get("compression") is not None:
        raise InvalidInput(
            f"{field}.data.compression",
            found=brief(data["compression"]),
            expected="none: buffers are taken as they are",
        )
    encoding = data.get("encoding")
    if encoding not in _ENCODINGS:
        raise InvalidInput(
            f"{field}.data.encoding",
            found=brief(encoding),
            expected=f"one of {', '.join(_ENCODINGS)}",
        )
    read = _from_base64 if encoding == "base64" else _from_buffer
    array = read(f"{field}.data.buffer", data.get("buffer"), shape, dtype)
    return floats(field, array), dtype


def read_shape(field: str, value: object) -> _Shape:
    """The shape of an array that need not be there: of ``abstract_eval``.

    Raises:
        InvalidInput: It is none.
    """
    if isinstance(value, dict):
        return _described(field, value)[0]
    return _from_lists(field, value).shape


def written(array: np.ndarray, form: str) -> dict[str, Any]:
    """An array in the form of Tesseract, for orjson."""
    array = np.ascontiguousarray(array)
    if form == "json":
        data = {"buffer": array, "encoding": "json"}
    else:
        content = base64.b64encode(array.data).decode("ascii")
        data = {"buffer": content, "encoding": "base64"}
    return {
        "object_type": "array",
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "data": data,
    }


def brief(value: object) -> str:
    """A value as it was sent, cut where it is long."""
    return "nothing" if value is None else reprlib.repr(value)


def _media_range(text: str) -> tuple[str, dict[str, str]]:
    kind, *given = text.split(";")
    pairs = (each.partition("=") for each in given)
    parameters = {
        name.strip().lower(): value.strip().strip('"') for name, _, value in pairs
    }
    return kind.strip().lower(), parameters


def _quality(parameters: dict[str, str]) -> float:
    try:
        quality = float(parameters.get("q", "1"))
    except ValueError:
        return 0.0
    return quality if math.isfinite(quality) else 0.0


def _described(field: str, value: dict[str, Any]) -> tuple[_Shape, str]:
    """Shape and dtype of an array that describes itself."""
    _known(field, value, ("object_type", "shape", "dtype", "data"))
    kind = value.get("object_type", "array")
    if kind != "array":
        raise InvalidInput(
            f"{field}.object_type", found=brief(kind), expected="'array'"
        )
    shape, dtype = value.get("shape"), value.get("dtype")
    is_shape = (
        isinstance(shape, list)
        and len(shape) <= _MOST_AXES
        and all(type(n) is int and n >= 0 for n in shape)
    )
    if not is_shape:
        expected = f"a list of at most {_MOST_AXES} sizes"
        raise InvalidInput(f"{field}.shape", found=brief(shape), expected=expected)
    if dtype not in DTYPES:
        expected = f"one of {', '.join(DTYPES)}"
        raise InvalidInput(f"{field}.dtype", found=brief(dtype), expected=expected)
    assert isinstance(shape, list)
    return tuple(shape), dtype


def _known(field: str, value: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in value:
        if name not in names:
            raise InvalidInput(
                f"{field}.{_word(name)}",
                found="a field that is not known here",
                expected=one_of(name, names),
            )


def _from_base64(field: str, buffer: object, shape: _Shape, dtype: str) -> np.ndarray:
    kind = np.dtype(dtype).newbyteorder("<")
    expected = f"{math.prod(shape) * kind.itemsize} bytes: {list(shape)} of {dtype}"
    if not isinstance(buffer, str):
        raise InvalidInput(field, found=brief(buffer), expected=f"base64 of {expected}")
    try:
        content = base64.b64decode(buffer, validate=True)
    except ValueError as error:
        raise InvalidInput(
            field, found=f"what is no base64 ({error})", expected="base64"
        ) from error
    if len(content) != math.prod(shape) * kind.itemsize:
        raise InvalidInput(field, found=f"{len(content)} bytes", expected=expected)
    return np.frombuffer(content, kind).reshape(shape)


def _from_buffer(field: str, buffer: object, shape: _Shape, dtype: str) -> np.ndarray:
    array = _from_lists(field, buffer)
    if array.size != math.prod(shape):
        raise InvalidInput(
            field,
            found=f"{array.size} numbers",
            expected=f"{math.prod(shape)}, as shape says",
        )
    return array.reshape(shape)


def _from_lists(field: str, value: object) -> np.ndarray:
    """Numbers in lists of lists of one length each."""
    depth, inner = 0, value
    while isinstance(inner, list):
        depth += 1
        inner = inner[0] if inner else None
    if depth > _MOST_AXES:
        raise InvalidInput(
            field, found=f"lists {depth} deep", expected=f"at most {_MOST_AXES}"
        )
    try:
        _lists(depth).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ", ".join(map(str, first["loc"]))
        raise InvalidInput(
            f"{field}[{place}]" if place else field,
            found=brief(first["input"]),
            expected="a finite number" if depth or value is None else _ARRAY,
        ) from None
    arrays: dict[str, np.ndarray] = {}
    if isinstance(value, list):
        add_array(arrays, field, value)
        return arrays[field]
    return np.array(value, np.float64)


_ARRAY = "an array: lists of numbers, or an object with shape, dtype and data"


@functools.cache
def _lists(depth: int) -> TypeAdapter[Any]:
    kind: Any = Number
    for _ in range(depth):
        kind = Annotated[list[kind], Field(fail_fast=True)]
    return TypeAdapter(kind)


def _word(name: str) -> str:
    """A name that was sent, fit for a place in an error."""
    return name[:60] if name.isidentifier() else repr(name[:60])
