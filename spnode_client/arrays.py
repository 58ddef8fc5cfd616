"""Arrays on the wire: numpy's own container, never pickled."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

NPZ = "application/x-npz"


def pack(arrays: Mapping[str, Any]) -> bytes:
    """The arrays as the bytes of an ``.npz`` file."""
    buffer = io.BytesIO()
    members: dict[str, Any] = {name: np.asarray(x) for name, x in arrays.items()}
    np.savez(buffer, **members)
    return buffer.getvalue()


def unpack(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` file; pickled objects are refused."""
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def states_batch(x0: Any) -> np.ndarray:
    """One initial condition ``(state,)`` or several ``(batch, state)``, as float64."""
    array = np.asarray(x0, dtype=np.float64)
    if array.ndim not in (1, 2):
        raise ValueError(
            f"x0 has shape {array.shape}; expected (state,) or (batch, state)"
        )
    return array
