"""The resumable state of a run: one safetensors file, written atomically.

Arrays keep their bits; everything else is JSON in the header. Nothing is pickled.
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
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


def restored(template: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The arrays of a checkpoint in the shape of a state.

    Args:
        template: A state of that shape.
        arrays: What the checkpoint holds, as it was saved.

    Raises:
        InvalidInput: They are of another shape.
    """
    leaves, tree = jax.tree.flatten(template)
    names = [f"{i:04d}" for i in range(len(leaves))]
    fits = set(names) == set(arrays) and all(
        arrays[name].shape == leaf.shape and arrays[name].dtype == leaf.dtype
        for name, leaf in zip(names, leaves, strict=True)
    )
    if not fits:
        raise InvalidInput(
            "checkpoint",
            found="arrays that do not fit this run",
            expected="a checkpoint of the same version; remove it to start anew",
        )
    return jax.tree.unflatten(tree, [jnp.asarray(arrays[name]) for name in names])
