"""Numerical hygiene for the library's tests: x64, shapes.

Shape annotations are checked by beartype on every call in these tests.
"""

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)
install_import_hook(
    [
        f"spnode_core.{name}"
        for name in (
            "autoencoder",
            "constraints",
            "dynamics",
            "integrators",
            "linear",
            "networks",
            "nonlinear",
            "normaliser",
            "rollout",
        )
    ],
    "beartype.beartype",
)


@pytest.fixture
def key():
    return jax.random.key(0)
