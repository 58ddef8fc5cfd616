"""Which accelerators this machine shows, asked without loading JAX."""

import os
from pathlib import Path


def visible_gpus() -> list[str]:
    """Return the NVIDIA GPUs that this process may use, as CUDA names them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name]
    found = Path("/dev").glob("nvidia[0-9]*")
    return sorted((each.name.removeprefix("nvidia") for each in found), key=int)
