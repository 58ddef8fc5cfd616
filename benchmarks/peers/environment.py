"""Environments of the peers: pinned, installed when they are first asked for."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

# These have our own versions in every environment.
_COMPUTING = ("jax", "jaxlib", "equinox", "numpy", "scipy")
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Peer:
    """Software to be measured against.

    Args:
        name: Of its environment.
        requirements: Pinned; what our own library computes with stands beside them.
    """

    name: str
    requirements: tuple[str, ...]


PEERS = {
    peer.name: peer
    for peer in (
        Peer("solvers", ("diffrax==0.7.2", "scikit-sundae==1.2.0")),
        Peer("mosec", ("mosec==0.9.8",)),
        Peer("umbridge", ("umbridge==1.2.10",)),
        Peer("litserve", ("litserve==0.2.19",)),
        Peer("tesseract", ("tesseract-core[runtime]==1.15.0",)),
        Peer("bentoml", ("bentoml==1.4.40",)),
    )
}
"""By name."""


class PeerError(RuntimeError):
    """A peer that cannot be installed or does not run; the message says why."""


def find_python(name: str, folder: Path) -> Path:
    """The interpreter of a peer's environment, which is made where it is missing.

    Args:
        name: One of ``PEERS``.
        folder: Where environments lie.

    Raises:
        PeerError: Its packages cannot be installed.
    """
    peer = PEERS[name]
    environment = folder / "peers" / name
    python, stamp = environment / "bin" / "python", environment / "spnode-peer.json"
    computing = [f"{package}=={version(package)}" for package in _COMPUTING]
    wanted = {"requirements": list(peer.requirements), "computing": computing}
    if stamp.exists() and json.loads(stamp.read_text()) == wanted:
        return python
    shutil.rmtree(environment, ignore_errors=True)
    environment.parent.mkdir(parents=True, exist_ok=True)
    packages = [*computing, *peer.requirements]
    for command in _commands(packages, environment, python):
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise PeerError(f"{name} cannot be installed: {done.stderr[-2000:]}")
    stamp.write_text(json.dumps(wanted))
    return python


def _commands(packages: list[str], environment: Path, python: Path) -> list[list[str]]:
    """What makes the environment, by uv, which ``./spnode`` finds or brings."""
    private = ROOT / ".uv" / "venv" / "bin" / "uv"
    uv = shutil.which("uv") or (os.fspath(private) if private.exists() else None)
    if uv is None:
        raise PeerError("uv is not on PATH, and ./spnode has not put one into .uv")
    into = ["--python", os.fspath(python)]
    ours = ["-r", "pyproject.toml", "--extra", "jax"]
    return [
        [uv, "venv", "--quiet", "--python", sys.executable, os.fspath(environment)],
        [uv, "pip", "install", "--quiet", *into, *ours, *packages],
    ]
