"""Arrays in safetensors form, checked before they are believed."""

from collections.abc import Mapping

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from spnode_core.artifact_file import parse_json
from spnode_core.errors import ArtifactError

_LONGEST_HEADER = 4 * 1024**2
_DTYPES = {"F32", "F64"}


def encode_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays in safetensors form, equal for equal arrays."""
    return save_tensors({k: np.asarray(arrays[k], order="C") for k in sorted(arrays)})


def decode_arrays(data: bytes, member: str) -> dict[str, np.ndarray]:
    """Arrays of a safetensors member: float32 and float64 only, all finite.

    Raises:
        ArtifactError: Anything else.
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(_LONGEST_HEADER, len(data) - 8):
        raise ArtifactError(f"{member}: a header of {length} bytes is not possible")
    header = parse_json(data[8 : 8 + length], member)
    if not isinstance(header, dict):
        raise ArtifactError(f"{member}: a header that is no object")
    header.pop("__metadata__", None)
    for name, entry in header.items():
        dtype = entry.get("dtype") if isinstance(entry, dict) else None
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            raise ArtifactError(
                f"{member}: {name!r} has dtype {dtype!r}, not F32 or F64"
            )
    try:
        arrays = load_tensors(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ArtifactError(f"{member} cannot be read: {error}") from error
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ArtifactError(f"{member}: {name!r} holds a number that is not finite")
    return arrays
