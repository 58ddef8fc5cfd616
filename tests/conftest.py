"""How JAX compiles in this process, whichever tests run and in whatever order."""

import os
import signal
import time
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from tests.endtoend.browser import SCREENSHOTS
from tests.postgres import empty_database, postgres

# Tests compile far more than they compute, and so do the processes that they start.
# XLA's older emitters take a third less of a processor for it.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
jax.config.update("jax_disable_most_optimizations", True)
# What broadcasts by accident is refused, in code of ours and in tests.
jax.config.update("jax_numpy_rank_promotion", "raise")


# A compiled program is 90 to 500 memory mappings, of which Linux grants a process
# 65,530; one more ends the interpreter with a fatal error.
MOST_MAPPINGS = 20_000
BEGUN = time.time()


def mappings() -> int:
    """Memory mappings of this process; 0 where the system does not tell."""
    path = Path("/proc/self/maps")
    return len(path.read_bytes().splitlines()) if path.exists() else 0


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Forget the cache of compiled programs of a deployment that has been deleted."""
    folder = jax.config.jax_compilation_cache_dir
    if folder and not Path(folder).exists():
        jax.config.update("jax_compilation_cache_dir", None)
        compilation_cache.reset_cache()


@pytest.fixture(autouse=True)
def few_mappings():
    """Forget compiled programs before there are too many of them."""
    yield
    if mappings() > MOST_MAPPINGS:
        jax.clear_caches()


@pytest.fixture
def heeded():
    """Started in the background of a shell, tests and their children ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def postgres_server():
    """The URL of a real PostgreSQL server."""
    with postgres() as (_, url):
        yield url


@pytest.fixture
def postgres_url(postgres_server):
    """An empty database on it."""
    with empty_database(postgres_server) as url:
        yield url


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter):
    """Name the pictures of the page that this run has taken, and count what it left."""
    taken = [
        each for each in SCREENSHOTS.glob("*.png") if each.stat().st_mtime >= BEGUN
    ]
    if taken:
        terminalreporter.write_line(f"{len(taken)} screenshots in {SCREENSHOTS}")
    skipped = terminalreporter.stats.get("skipped", [])
    left = [each for each in skipped if "no Chromium here" in str(each.longrepr)]
    if left:
        terminalreporter.write_line(f"{len(left)} tests of the page left out")
