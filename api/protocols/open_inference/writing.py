"""What was computed, as the answer to an inference request.

::

    fields of the answer -> outputs that were asked for -> JSON, then raw tensors
"""

from typing import Any

import numpy as np
import orjson

from api.computing import Computed
from api.protocols.open_inference.reading import DTYPES, Datatype, Envelope
from services.rollouts.served import are_all
from spnode_core.errors import InvalidInput

_FIELDS = {"latent": "z"}


def written(envelope: Envelope, computed: Computed) -> tuple[bytes, int | None]:
    """The body of an answer, and how many bytes of it are JSON where not all are.

    Raises:
        RolloutFailed: A row is not finite.
        InvalidInput: A number is beyond FP32, which was asked for.
    """
    options = envelope.options
    fields = computed.fields()
    found = _outputs(fields, computed.layout.batched, options.datatype)
    outputs: list[dict[str, Any]] = []
    raw: list[bytes] = []
    for name, is_raw in _wanted(envelope, found):
        array = found[name]
        described = {
            "name": name,
            "datatype": "BOOL" if array.dtype == bool else options.datatype,
            "shape": list(array.shape),
        }
        if is_raw:
            raw.append(array.tobytes())
            described["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            described["data"] = array.ravel()
        outputs.append(described)
    answer = {
        "model_name": fields["model"],
        "model_version": str(fields["version"]),
        **({} if envelope.id is None else {"id": envelope.id}),
        "parameters": _parameters(fields),
        "outputs": outputs,
    }
    text = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"".join([text, *raw]), len(text) if raw else None


def _outputs(
    fields: dict[str, Any], batched: bool, datatype: Datatype
) -> dict[str, np.ndarray]:
    """Everything that was computed, by the names of this door; rows come first."""
    found = {"x": fields["x"], "times": fields["times"]}
    found["inside"] = np.array(fields["domain"]["inside"])
    for name in ("lower", "upper", "spread", "latent"):
        field = _FIELDS.get(name, name)
        if field in fields:
            found[name] = fields[field]
    for name, array in found.items():
        if not batched and name not in ("times", "inside"):
            array = array[None]
        found[name] = array if array.dtype == bool else _cast(array, name, datatype)
    return found


def _cast(array: np.ndarray, name: str, datatype: Datatype) -> np.ndarray:
    if array.dtype == DTYPES[datatype]:
        found = np.ascontiguousarray(array)
    else:
        with np.errstate(over="ignore"):
            found = array.astype(DTYPES[datatype], order="C")
    if not are_all(np.isfinite(found)):
        largest = float(np.abs(array).max())
        raise InvalidInput(
            "parameters.datatype",
            found=f"{datatype}, and {largest!r} in {name}",
            expected="FP64 for numbers of that size",
        )
    return found


def _wanted(envelope: Envelope, found: dict[str, np.ndarray]) -> list[tuple[str, bool]]:
    """Names of the outputs, and whether each is to be raw."""
    usual = envelope.options.binary_data_output
    if not envelope.outputs:
        return [(name, usual) for name in found]
    wanted = []
    for each in envelope.outputs:
        own = each.parameters.binary_data if each.parameters else None
        wanted.append((each.name, usual if own is None else own))
    return wanted


def _parameters(fields: dict[str, Any]) -> dict[str, Any]:
    found = {"digest": fields["digest"], "inside": all(fields["domain"]["inside"])}
    if fields["warnings"]:
        found["warnings"] = "; ".join(fields["warnings"])
    if "coverage" in fields:
        found["coverage"] = fields["coverage"]
    return found
