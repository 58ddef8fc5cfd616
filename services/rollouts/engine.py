"""Computes batches of rollouts and their derivatives with resident, compiled models.

Rows run in tiles of 2, 8 or 32, larger batches as a loop over tiles of 32; times are
padded to buckets with ``h = 0``, which is exact. So few shapes are compiled, and **a
row's bits depend neither on its neighbours nor on the size of its batch**: a model
whose small tiles give other bits than the tile of 32 runs in tiles of 32 only.

With ``training/run``, the only module of the services that imports JAX.
"""

import functools
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from services.blobs import Blobs
from services.rollouts.request import DIFFERENTIABLE, Arrays
from services.rollouts.resident import Resident
from services.settings import Settings
from spnode_core import artifact
from spnode_core.rollout import rollout
from spnode_core.surrogate import Surrogate
from spnode_core.timegrid import Plan, TimeGrid

TILES = (2, 8, 32)
_LOG = logging.getLogger(__name__)
# The first rows of a probe that check whether all tiles give the same bits.
_PROBE_ROWS = 2


@dataclass
class Counters:
    """What an engine has done since it began."""

    batches: int = 0
    rows: int = 0
    compilations: int = 0
    """Shapes that were met for the first time, warm-up included."""
    compile_seconds: float = 0.0


@dataclass
class Model:
    """A surrogate that is loaded, with the shapes that it has been compiled for."""

    digest: str
    surrogate: Surrogate
    functions: dict[str, Callable[..., Any]]
    arrays: Any
    bytes: int
    tiles: tuple[int, ...] = TILES
    seen: set[tuple] = field(default_factory=set)

    @functools.cached_property
    def grid(self) -> TimeGrid:
        """The grid of times on which the model steps."""
        return self.surrogate.grid


class Engine:
    """Runs batches; not thread-safe: one thread owns it.

    Args:
        settings: Memory limits and the folder of the compilation cache.
        blobs: Where artifacts are fetched from, by digest.
    """

    def __init__(self, settings: Settings, blobs: Blobs) -> None:
        configure_jax(settings)
        self._blobs = blobs
        self._resident = Resident(self._load, settings.resident_bytes)
        self.counters = Counters()

    @property
    def resident(self) -> Resident[Model]:
        """The models that are loaded."""
        return self._resident

    def run(self, operation: str, digest: str, arrays: Arrays) -> Arrays:
        """Compute a batch.

        Args:
            operation: ``rollout``, ``latent``, ``jvp`` or ``vjp``.
            digest: The artifact.
            arrays: ``x0 (row, state)``, ``times (time,)``; where the model takes them
                ``parameters``, ``controls`` (by row) and ``control_times``; for jvp
                ``tangents.x0`` and so on, for vjp ``cotangents (row, time, state)``.

        Returns:
            ``x (row, time, state)``; ``z`` (latent), ``tangents`` (jvp, as ``x``) or
            ``gradients.x0`` and so on (vjp, by row).
        """
        model = self._resident.get(digest)
        rows = len(arrays["x0"])
        self.counters.batches += 1
        self.counters.rows += rows
        times = arrays["times"]
        plan = _padded(model.grid, model.grid.plan(times, arrays.get("control_times")))
        by_row = _pad_cotangents(_rows_of(arrays), plan.outputs)
        # Dispatch is asynchronous: all tiles are on their way before one is fetched.
        parts = [
            (
                stop - start,
                self._tile(model, operation, plan, by_row, start, stop, tile),
            )
            for start, stop, tile in _tiles(rows, model.tiles)
        ]
        results = {
            name: np.concatenate(
                [np.asarray(part[name])[:count] for count, part in parts]
            )
            for name in parts[0][1]
        }
        for name in ("x", "z", "tangents"):
            if name in results:
                results[name] = results[name][:, : len(times)]
        return results

    def warm(self, digest: str) -> None:
        """Load a version, compile its own grid in all tiles and compare their bits."""
        model = self._resident.get(digest)
        if model.seen:
            return
        arrays = _probe(model)
        model.tiles = TILES[-1:]
        whole = self.run("rollout", digest, arrays)["x"]
        equal = True
        for tile in TILES[:-1]:
            model.tiles = (tile,)
            equal &= np.array_equal(self.run("rollout", digest, arrays)["x"], whole)
        model.tiles = TILES if equal else TILES[-1:]
        if not equal:
            _LOG.warning(
                "tiles of %s give other bits for %s: it runs in tiles of %d only",
                TILES[:-1],
                digest,
                TILES[-1],
            )

    def _load(self, digest: str) -> Model:
        with tempfile.TemporaryDirectory(prefix="spnode-") as folder:
            path = Path(folder) / "artifact.spnode"
            self._blobs.download(f"artifacts/{digest}", path)
            surrogate = artifact.load(path, digest=digest)
        arrays, static = eqx.partition(surrogate, eqx.is_array)
        arrays = jax.device_put(arrays)
        size = sum(leaf.nbytes for leaf in jax.tree_util.tree_leaves(arrays))
        functions = {name: make(static) for name, make in _OPERATIONS.items()}
        return Model(digest, surrogate, functions, arrays, size)

    def _tile(
        self,
        model: Model,
        operation: str,
        plan: Plan,
        by_row: Arrays,
        start: int,
        stop: int,
        tile: int,
    ) -> dict[str, Any]:
        given = {
            name: _filled(array[start:stop], tile) for name, array in by_row.items()
        }
        key = _shape_key(operation, plan, given)
        if key in model.seen:
            return model.functions[operation](model.arrays, plan, given)
        began = time.perf_counter()
        result = model.functions[operation](model.arrays, plan, given)
        model.seen.add(key)
        self.counters.compilations += 1
        self.counters.compile_seconds += time.perf_counter() - began
        return result


def configure_jax(settings: Settings) -> None:
    """Set what JAX must know before its first computation: this is an entry point."""
    jax.config.update("jax_enable_x64", True)
    cache = settings.data_folder / "compiled"
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def bucket(count: int, own: int) -> int:
    """The padded number of steps or outputs: the model's own number, or 2^k, 3 * 2^k.

    Args:
        count: How many there are.
        own: How many the model's own grid has, which is never padded.
    """
    if count == 0:
        return 0
    power = 1 << (count - 1).bit_length()
    rounded = 3 * power // 4 if power >= 4 and count <= 3 * power // 4 else power
    return own if count <= own < rounded else rounded


def _padded(grid: TimeGrid, plan: Plan) -> Plan:
    own = len(grid.times) - 1 if grid.uniform is None else 0
    return plan.padded(bucket(plan.steps, own), bucket(plan.outputs, own + 1))


def _tiles(rows: int, tiles: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
    """Start, stop and tile of each piece: whole large tiles, then the smallest fit."""
    largest = tiles[-1]
    for start in range(0, rows, largest):
        stop = min(start + largest, rows)
        yield start, stop, next(tile for tile in tiles if stop - start <= tile)


def _filled(array: np.ndarray, tile: int) -> np.ndarray:
    """The rows, filled up to a tile with copies of the last one, which are finite."""
    missing = tile - len(array)
    if not missing:
        return array
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])


def _rows_of(arrays: Arrays) -> Arrays:
    return {
        name: array
        for name, array in arrays.items()
        if name not in ("times", "control_times")
    }


def _pad_cotangents(by_row: Arrays, outputs: int) -> Arrays:
    if "cotangents" not in by_row:
        return by_row
    given = by_row["cotangents"]
    missing = outputs - given.shape[1]
    return by_row | {"cotangents": np.pad(given, ((0, 0), (0, missing), (0, 0)))}


def _shape_key(operation: str, plan: Plan, given: Arrays) -> tuple:
    return (
        operation,
        plan.on_grid,
        plan.steps,
        plan.outputs,
        len(plan.distinct),
        *((name, array.shape) for name, array in sorted(given.items())),
    )


def _probe(model: Model) -> Arrays:
    """Rows inside the training domain, at the model's own times."""
    signature = model.surrogate.signature
    domain = signature.domain
    middle = (np.array(domain.lower) + np.array(domain.upper)) / 2
    rows = np.stack([middle, np.array(domain.upper)])[:_PROBE_ROWS]
    grid = model.grid
    times = grid.times[1:] if grid.uniform is None else grid.uniform * np.arange(1, 33)
    arrays: Arrays = {"x0": rows, "times": times}
    if signature.parameters:
        middle = (
            np.array(domain.parameters_lower) + np.array(domain.parameters_upper)
        ) / 2
        arrays["parameters"] = np.tile(middle, (len(rows), 1))
    if signature.controls:
        middle = (np.array(domain.controls_lower) + np.array(domain.controls_upper)) / 2
        arrays["controls"] = np.tile(middle, (len(rows), 1, 1))
        arrays["control_times"] = np.zeros(1)
    return arrays


# --- The compiled operations: (arrays of the surrogate, plan, rows) -> results ------


def _inputs(given: Any) -> dict[str, Any]:
    return {name: given[name] for name in DIFFERENTIABLE if name in given}


def _forward(static: Any, *, latent: bool = False) -> Callable[..., Any]:
    def forward(arrays: Any, plan: Plan, inputs: dict[str, Any]) -> Any:
        return rollout(
            eqx.combine(arrays, static),
            inputs["x0"],
            plan,
            inputs.get("parameters"),
            inputs.get("controls"),
            latent=latent,
        )

    return forward


def _rollout(static: Any) -> Callable[..., Any]:
    forward = _forward(static)
    return jax.jit(
        lambda arrays, plan, given: {"x": forward(arrays, plan, _inputs(given))}
    )


def _latent(static: Any) -> Callable[..., Any]:
    states, latents = _forward(static), _forward(static, latent=True)
    return jax.jit(
        lambda arrays, plan, given: {
            "x": states(arrays, plan, _inputs(given)),
            "z": latents(arrays, plan, _inputs(given)),
        }
    )


def _jvp(static: Any) -> Callable[..., Any]:
    forward = _forward(static)

    def jvp(arrays: Any, plan: Plan, given: dict[str, Any]) -> dict[str, Any]:
        inputs = _inputs(given)
        tangents = {name: given[f"tangents.{name}"] for name in inputs}
        x, tangent = jax.jvp(
            functools.partial(forward, arrays, plan), (inputs,), (tangents,)
        )
        return {"x": x, "tangents": tangent}

    return jax.jit(jvp)


def _vjp(static: Any) -> Callable[..., Any]:
    forward = _forward(static)

    def vjp(arrays: Any, plan: Plan, given: dict[str, Any]) -> dict[str, Any]:
        x, pull = jax.vjp(functools.partial(forward, arrays, plan), _inputs(given))
        (gradients,) = pull(given["cotangents"])
        named = {f"gradients.{name}": value for name, value in gradients.items()}
        return {"x": x, **named}

    return jax.jit(vjp)


_OPERATIONS = {"rollout": _rollout, "latent": _latent, "jvp": _jvp, "vjp": _vjp}
