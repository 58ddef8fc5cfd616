"""Where and from which source a row was measured; no name and no address."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

_PACKAGES = ("jax", "jaxlib", "equinox", "optax", "numpy", "scipy")


def commit(root: Path) -> str:
    """The source's commit; ``+`` after it where Python files have changed since.

    ``unknown`` where there is no repository.
    """
    short = _git(root, "rev-parse", "--short", "HEAD")
    if not short:
        return "unknown"
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", "*.py")
    return f"{short}+" if changed else short


def machine() -> dict[str, Any]:
    """Cores this process may use, memory and kind of machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": cores or os.cpu_count(),
        "memory_gib": round(memory / 2**30),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def processor() -> dict[str, str]:
    """Its name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    return {"processor": names[0].strip() if names else platform.processor()}


def versions() -> dict[str, str]:
    """Those of Python and of what computes."""
    found = {package: version(package) for package in _PACKAGES}
    return {"python": platform.python_version(), **found}


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
