"""The resumable state of a run: one safetensors file, written atomically.

Arrays keep their bits; everything else is JSON in the header. Nothing is pickled.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from spnode_core.atomic import replacing
from spnode_core.errors import InvalidInput

SCHEMA = 2


def save_checkpoint(
    path: Path, arrays: dict[str, np.ndarray], content: dict[str, Any]
) -> None:
    """Replace the checkpoint at ``path``, so that a crash leaves the old or the new.

    Args:
        path: The file.
        arrays: State by name.
        content: What identifies the run and where it is; JSON.
    """
    header = {"spnode_checkpoint": json.dumps({"schema": SCHEMA, **content})}
    data = save({k: np.asarray(v, order="C") for k, v in arrays.items()}, header)
    with replacing(path) as file:
        file.write(data)


def load_checkpoint(
    path: Path, identity: dict[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """Read a checkpoint back.

    Args:
        path: The file; None is returned where there is none.
        identity: What the checkpoint must say of its run.

    Raises:
        InvalidInput: The file is damaged, or belongs to another run.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            content = json.loads((file.metadata() or {})["spnode_checkpoint"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise InvalidInput(
            "checkpoint",
            found=f"{path.name}, which cannot be read ({error})",
            expected="a checkpoint of spnode; remove the file to start anew",
        ) from error
    for key, expected in {"schema": SCHEMA, **identity}.items():
        if content.get(key) != expected:
            raise InvalidInput(
                "checkpoint",
                found=f"{path.name}, the checkpoint of a run with another {key}",
                expected="one of this run; choose another file or remove this one",
            )
    return arrays, content
