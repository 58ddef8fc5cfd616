"""Surrogates in this process; the only module here that imports ``spnode_core``."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spnode_client.records import ModelVersion, Record

if TYPE_CHECKING:
    from spnode_client.registry import Models


def load_version(models: "Models", reference: str) -> Any:
    """Download a version's artifact and load it, verified by digest and probe.

    JAX must be in 64-bit mode: ``jax.config.update("jax_enable_x64", True)``.

    Raises:
        ImportError: The extra ``spnode[jax]`` is not installed.
    """
    return _loaded(models, models.version(reference))


def export_version(
    models: "Models", reference: str, folder: str | Path, **options: Any
) -> Record:
    """Download a version's artifact and export its rollout to a folder.

    JAX must be in 64-bit mode, as for ``load_version``.

    Args:
        models: Where the version is.
        reference: Which one.
        folder: Where to; new or empty.
        **options: ``times``, ``control_times``, ``rows`` of ``spnode_core.export``.

    Raises:
        ImportError: The extra ``spnode[jax]`` is not installed.
    """
    from spnode_core import export

    version = models.version(reference)
    origin = {
        "model": version.model,
        "version": version.number,
        "digest": version.digest,
    }
    return export(_loaded(models, version), folder, origin=origin, **options)


def _loaded(models: "Models", version: ModelVersion) -> Any:
    from spnode_core import load

    with tempfile.TemporaryDirectory() as folder:
        path = models.download(str(version), Path(folder) / "version.spnode")
        return load(path, digest=version.digest)
