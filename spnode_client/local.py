"""Surrogates in this process; the only module here that imports ``spnode_core``."""

from pathlib import Path
from typing import Any

from spnode_client.records import ModelVersion, Record


def load_file(path: Path, version: ModelVersion) -> Any:
    """Load a version's artifact, verified by digest and probe.

    JAX must be in 64-bit mode: ``jax.config.update("jax_enable_x64", True)``.

    Raises:
        ImportError: The extra ``spnode[jax]`` is not installed.
    """
    from spnode_core import load

    return load(path, digest=version.digest)


def export_file(
    path: Path, version: ModelVersion, folder: str | Path, **options: Any
) -> Record:
    """Export the rollout of a version's artifact to a folder.

    JAX must be in 64-bit mode, as for ``load_file``.

    Args:
        path: The artifact.
        version: Whose it is.
        folder: Where to; new or empty.
        **options: ``times``, ``control_times``, ``rows`` of ``spnode_core.export``.

    Raises:
        ImportError: The extra ``spnode[jax]`` is not installed.
    """
    from spnode_core import export

    origin = {
        "model": version.model,
        "version": version.number,
        "digest": version.digest,
    }
    return export(load_file(path, version), folder, origin=origin, **options)
