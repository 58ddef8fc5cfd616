"""One live embedded stack for the session, and a small model trained through it.

Everything goes through ``python -m deploy``, as a user's shell would.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import jax
import pytest

from spnode_client import Client
from spnode_core import systems
from spnode_core.dataset import save_dataset
from tests.api.deployment import deployed
from tests.endtoend.browser import launched

# The library leaves this to the program that uses it.
jax.config.update("jax_enable_x64", True)

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "nonlinear": {"kind": "relaxation", "width": 16, "depth": 1},
    "autoencoder": {"kind": "residual", "width": 16, "depth": 1},
}
TINY = {**SMALL, "autoencoder": {"kind": "none"}}
"""It compiles faster still, and keeps no sums."""
QUICK = [
    *("--iterations", "150", "--set=training.polish=none"),
    "--set=training.batch=16",
]
"""A training that takes seconds; its surrogate is rough, and nothing here needs more."""


def options(surrogate: Mapping[str, Mapping[str, object]]) -> list[str]:
    """A description of a surrogate on the command line."""
    return [
        f"--set=surrogate.{part}.{field}={value}"
        for part, fields in surrogate.items()
        for field, value in fields.items()
    ]


@dataclass(frozen=True)
class Shell:
    """Runs ``./spnode`` commands on one data folder."""

    data: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    """Of the environment, besides."""

    @property
    def environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("SPNODE_")
        }
        return {
            **kept,
            "PYTHONPATH": str(ROOT),
            "SPNODE_DATA_FOLDER": str(self.data),
            "SPNODE_HEARTBEAT_SECONDS": "1",
            "SPNODE_LEASE_SECONDS": "4",
            **self.variables,
        }

    @property
    def program(self) -> list[str]:
        return [sys.executable, "-P", "-m", "deploy"]

    def run(self, *arguments: object, cwd: Path | None = None, code: int = 0):
        done = subprocess.run(
            [*self.program, *map(str, arguments)],
            env=self.environment,
            cwd=cwd or self.data.parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        said = f"{arguments}: {done.stdout}\n{done.stderr}"
        assert done.returncode == code, said
        assert "Traceback" not in done.stderr, said
        return done

    def json(self, *arguments: object, code: int = 0):
        return json.loads(self.run(*arguments, "--json", code=code).stdout)

    def status(self):
        return self.json("status")

    def pid(self, name: str) -> int:
        return next(
            each for each in self.status()["processes"] if each["name"] == name
        )["pid"]

    def client(self) -> Client:
        stack = json.loads((self.data / "stack.json").read_text())
        return Client(stack["url"], (self.data / "key").read_text().strip())


@pytest.fixture(scope="session")
def file(tmp_path_factory) -> Path:
    """A user's own trajectories: a few of Robertson's reaction."""
    path = tmp_path_factory.mktemp("user") / "reaction.npz"
    save_dataset(systems.generate("robertson", 40, seed=1), path)
    return path


@pytest.fixture(scope="session")
def shell(tmp_path_factory):
    """A stack that is up."""
    # Tests compile far more than they compute.
    variables = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    made = Shell(tmp_path_factory.mktemp("stack") / ".spnode", variables)
    made.run("up")
    yield made
    made.run("down")


@pytest.fixture(scope="session")
def model(shell, file) -> str:
    """A quickly trained model, made from the user's file by one command."""
    small = [*QUICK, *options(SMALL)]
    version = shell.json("train", file, "--model", "reaction", *small)
    return version["model"]


@pytest.fixture(scope="module")
def browser():
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def gateway():
    """No worker: what is queued stays so."""
    with deployed() as data:
        yield data.start_gateway()


@pytest.fixture(scope="module")
def link(gateway):
    return f"{gateway.url}/#key={gateway.key}"
