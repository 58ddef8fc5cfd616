"""Numerical hygiene for the library's tests: x64, no silent rank promotion, shapes.

Shape annotations are checked by beartype on every call in these tests.
"""

from pathlib import Path

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Tests compile far more than they compute.
jax.config.update("jax_disable_most_optimizations", True)
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


# A compiled program is some hundred memory mappings, of which Linux grants a process
# 65,530; one more ends the interpreter with a fatal error.
MOST_MAPPINGS = 20_000


def mappings() -> int:
    """Memory mappings of this process; 0 where the system does not tell."""
    path = Path("/proc/self/maps")
    return len(path.read_bytes().splitlines()) if path.exists() else 0


@pytest.fixture(autouse=True)
def few_mappings():
    """Forget compiled programs before there are too many of them."""
    yield
    if mappings() > MOST_MAPPINGS:
        jax.clear_caches()


@pytest.fixture
def key():
    return jax.random.key(0)
