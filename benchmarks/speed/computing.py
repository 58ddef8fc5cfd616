"""The engine of this process on the measured model, as contestants see it."""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.environment import find_python
from benchmarks.peers.process import Program
from benchmarks.speed.figures import Options, Tell
from benchmarks.speed.robertson import Floats, Model, find_model, times, truth, unseen
from services.blobs import Blobs
from services.rollouts.engine import Engine
from services.rollouts.request import Arrays
from services.rollouts.work import USUAL, Variant
from services.settings import Settings
from spnode_core import artifact

THROUGHPUT = Variant(throughput=True)
# Products of this size reach the most here; larger and smaller ones less or the same.
_PEAK_SIZE = 2048


class Computing:
    """The model in an engine, made when it is first needed.

    Args:
        options: What the caller chose.
        tell: Shows progress of training.
    """

    def __init__(self, options: Options, tell: Tell) -> None:
        self.options = options
        self.model: Model = find_model(options, tell)
        # Kept until the process ends, as the engine is.
        self._folder = tempfile.TemporaryDirectory(prefix="spnode-bench-")
        settings = Settings(data_folder=Path(self._folder.name))
        self._blobs = Blobs(settings.store_url)
        self.store(self.model.path, self.model.digest)
        self.engine = Engine(settings, self._blobs)

    @property
    def rounds(self) -> int:
        """How often each contestant is measured."""
        return 3 if self.options.quick else 15

    def rollout(
        self, rows: int, variant: Variant = USUAL, *, final: bool = False
    ) -> Callable[[], Arrays]:
        """A call that rolls out so many rows, arrays of the host in and out."""
        x0, at = unseen(rows), times()
        return self._ready(
            "rollout", {"x0": x0, "times": at[-1:] if final else at}, variant
        )

    def rollout_of(self, model: Model, rows: int) -> Callable[[], Arrays]:
        """The same of another model."""
        self.store(model.path, model.digest)
        given = {"x0": unseen(rows), "times": times()}
        return self._ready("rollout", given, USUAL, model.digest)

    def vjp(self, rows: int, variant: Variant = USUAL) -> Callable[[], Arrays]:
        """A call for the gradient of a weighted final state."""
        return self._ready("vjp", _final(rows), variant)

    def hvp(self, rows: int, variant: Variant = USUAL) -> Callable[[], Arrays]:
        """A call for a Hessian's product of a weighted final state."""
        inputs = _final(rows)
        inputs["cotangents"] = inputs["cotangents"][:, 0]
        inputs["tangents.x0"] = inputs["x0"][:, None]
        return self._ready("hvp", inputs, variant)

    def store(self, path: Path, digest: str) -> None:
        """Put an artifact where the engine finds it."""
        self._blobs.put(f"artifacts/{digest}", path)

    def warm(self, digest: str) -> None:
        """Load a model and prepare it as a gateway does."""
        self.engine.warm(digest)
        while self.engine.idle():
            pass

    def program(self, peer: str) -> Program:
        """A peer's program, in its environment."""
        folder = self.options.folder
        python = find_python(peer, folder)
        return Program(python, peer, folder / "peers" / f"{peer}.log")

    def _ready(
        self, operation: str, arrays: Arrays, variant: Variant, digest: str = ""
    ) -> Callable[[], Arrays]:
        call = functools.partial(
            self.engine.run, operation, digest or self.model.digest, arrays, variant
        )
        call()
        # Small tiles are tried when the engine is idle, each a compilation.
        while not self.options.quick and self.engine.idle():
            pass
        return call


def stored_copies(ours: Computing, count: int) -> list[str]:
    """Digests of so many artifacts of the model, which differ in their cards alone."""
    digests = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            path = Path(folder) / f"{number}.spnode"
            card = {"copy": number}
            digests.append(artifact.save(ours.model.surrogate, path, card=card))
            ours.store(path, digests[-1])
    return digests


@functools.cache
def computing(options: Options) -> Computing:
    """The one of this process for some options."""
    return Computing(options, lambda progress: None)


@functools.cache
def unseen_truth(rows: int) -> Floats:
    """The trusted solution of ``unseen``."""
    return truth(unseen(rows))


def peak() -> tuple[Callable[[], Any], float]:
    """A product of two large float32 matrices, and how many operations it takes."""
    draw = np.random.default_rng(0)
    shape = (2, _PEAK_SIZE, _PEAK_SIZE)
    one, other = jax.device_put(draw.standard_normal(shape, np.float32))
    product = jax.jit(jnp.matmul)
    return lambda: product(one, other).block_until_ready(), 2.0 * _PEAK_SIZE**3


def _final(rows: int) -> Arrays:
    weights = np.random.default_rng(1).standard_normal((rows, 1, 1, 3))
    return {"x0": unseen(rows), "times": times()[-1:], "cotangents": weights}
