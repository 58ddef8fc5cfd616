"""How JAX compiles in the tests, whichever of them run and in whatever order."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

# Most of what tests cost is compilation. Equal programs are compiled once, by whichever
# process is first: JAX reads these when it is imported, and what tests start has them.
_FOLDER = "JAX_COMPILATION_CACHE_DIR"
if _FOLDER not in os.environ:
    os.environ[_FOLDER] = tempfile.mkdtemp(prefix="spnode-compiled-")
    atexit.register(shutil.rmtree, os.environ[_FOLDER], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import jax  # noqa: E402
import pytest  # noqa: E402

# Tests compile far more than they compute; the processes that they start optimise.
jax.config.update("jax_disable_most_optimizations", True)


def pytest_configure(config):
    # Half of a file, read while another process writes it, is compiled again.
    half = "ignore:Error (reading|writing) persistent compilation cache:UserWarning"
    config.addinivalue_line("filterwarnings", half)


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
