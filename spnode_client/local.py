"""Surrogates in this process; the only module here that imports ``spnode_core``."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spnode_client.client import Models


def load_version(models: "Models", reference: str) -> Any:
    """Download a version's artifact and load it, verified by digest and probe.

    JAX must be in 64-bit mode: ``jax.config.update("jax_enable_x64", True)``.

    Raises:
        ImportError: The extra ``spnode[jax]`` is not installed.
    """
    from spnode_core import load

    version = models.version(reference)
    with tempfile.TemporaryDirectory() as folder:
        path = models.download(str(version), Path(folder) / "version.spnode")
        return load(path, digest=version.digest)
