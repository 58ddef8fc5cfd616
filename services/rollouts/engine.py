"""Computes batches of rollouts and their derivatives with resident, compiled models.

Rows run in tiles of 2, 8 or 32, larger batches as a loop over tiles of 32; times are
padded to buckets with ``h = 0``, which is exact. So few shapes are compiled, and **a
row's bits depend neither on its neighbours nor on the size of its batch**. Matrix
products of other sizes may round differently, so a shape is computed in tiles of 32
until its smaller tiles have shown, on random rows, that they give the same bits; that
is tried when the engine is idle.

With ``operations`` and ``training/run``, all of the services that imports JAX.
"""

import functools
import logging
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from services.blobs import Blobs, Damaged
from services.rollouts.canonical import USUAL, Variant
from services.rollouts.operations import OPERATIONS
from services.rollouts.request import Arrays
from services.rollouts.resident import Resident
from services.settings import Settings
from spnode_core import artifact
from spnode_core.errors import ArtifactError
from spnode_core.surrogate import Surrogate
from spnode_core.timegrid import Plan, TimeGrid

TILES = (2, 8, 32)
_LOG = logging.getLogger(__name__)
# Makes times of a grid to times beside it.
_OFF_GRID = 0.997
# Plans that a model keeps on the device, by the times that they are for.
_KEPT_PLANS = 64


@dataclass
class Counters:
    """What an engine has done since it began."""

    batches: int = 0
    rows: int = 0
    compilations: int = 0
    """Shapes that were met for the first time, warm-up included."""
    compile_seconds: float = 0.0


@dataclass(frozen=True)
class Shape:
    """What is compiled for, beside the tile: one program for each.

    Args:
        operation: ``rollout``, ``latent``, ``jvp`` or ``vjp``.
        plan: On the grid or not, number of steps, outputs and distinct steps.
        rows: Name and trailing axes of every array with an axis of rows.
    """

    operation: str
    plan: tuple[bool, int, int, int]
    rows: tuple[tuple[str, tuple[int, ...]], ...]


@dataclass
class Model:
    """A surrogate that is loaded, with the shapes that it has been compiled for."""

    digest: str
    surrogate: Surrogate
    functions: dict[str, Callable[..., Any]]
    arrays: Any
    size_bytes: int
    tiles: dict[Shape, tuple[int, ...]] = field(default_factory=dict)
    compiled: set[tuple[Shape, int]] = field(default_factory=set)
    plans: OrderedDict[bytes, Plan] = field(default_factory=OrderedDict)
    unproven: list[tuple[Shape, Plan, int]] = field(default_factory=list)

    @functools.cached_property
    def grid(self) -> TimeGrid:
        """The grid of times on which the model steps."""
        return self.surrogate.grid

    def plan(self, times: np.ndarray, control_times: np.ndarray | None) -> Plan:
        """The padded plan for some times, on the device; the last few are kept."""
        key = times.tobytes()
        if control_times is not None:
            key += b"|" + control_times.tobytes()
        if key in self.plans:
            self.plans.move_to_end(key)
            return self.plans[key]
        plan = _padded(self.grid, self.grid.plan(times, control_times))
        self.plans[key] = plan = jax.device_put(plan)
        if len(self.plans) > _KEPT_PLANS:
            self.plans.popitem(last=False)
        return plan


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

    def run(
        self, operation: str, digest: str, arrays: Arrays, variant: Variant = USUAL
    ) -> Arrays:
        """Compute a batch.

        Args:
            operation: ``rollout``, ``latent``, ``jvp`` or ``vjp``.
            digest: The artifact.
            arrays: ``x0 (row, state)``, ``times (time,)``; where the model takes them
                ``parameters``, ``controls`` (by row) and ``control_times``; for jvp
                ``tangents.x0`` and so on, for vjp ``cotangents (row, time, state)``.
            variant: How it is computed.

        Returns:
            ``x (row, time, state)``; ``z`` (latent), ``tangents`` (jvp, as ``x``) or
            ``gradients.x0`` and so on (vjp, by row).
        """
        model = self._resident.get(digest)
        rows = len(arrays["x0"])
        self.counters.batches += 1
        self.counters.rows += rows
        plan = model.plan(arrays["times"], arrays.get("control_times"))
        by_row = _pad_cotangents(_rows_of(arrays), plan.outputs)
        shape = _shape(operation, plan, by_row)
        if shape not in model.tiles:
            model.tiles[shape] = TILES[-1:]
            model.unproven += [(shape, plan, tile) for tile in TILES[:-1]]
        results = self._computed(model, shape, plan, by_row, model.tiles[shape])
        for name in ("x", "z", "tangents"):
            if name in results:
                results[name] = results[name][:, : len(arrays["times"])]
        return results

    def warm(self, digest: str) -> None:
        """Load a version and compile the rollouts that most callers ask for.

        Their smaller tiles are left to ``idle``.
        """
        model = self._resident.get(digest)
        probe = _probe(model)
        own = probe["times"]
        # The own grid, its end alone, and as many times off the grid.
        for times in (own, own[-1:], own * _OFF_GRID):
            self.run("rollout", digest, probe | {"times": times})

    def idle(self) -> bool:
        """Try one smaller tile of one shape; whether there was one to try."""
        for model in self._resident.models:
            if model.unproven:
                self._prove(model, *model.unproven.pop(0))
                return True
        return False

    def _prove(self, model: Model, shape: Shape, plan: Plan, tile: int) -> None:
        """Admit a tile if it gives a shape the same bits as the largest does."""
        rows = _random_rows(model, shape)
        whole = self._computed(model, shape, plan, rows, TILES[-1:])
        if _same_bits(whole, self._computed(model, shape, plan, rows, (tile,))):
            model.tiles[shape] = tuple(sorted({*model.tiles[shape], tile}))

    def _computed(
        self,
        model: Model,
        shape: Shape,
        plan: Plan,
        by_row: Arrays,
        tiles: tuple[int, ...],
    ) -> Arrays:
        """All rows of a batch, tile by tile."""
        # Dispatch is asynchronous: all tiles are on their way before one is fetched.
        parts = []
        for start, stop, tile in _tiles(len(by_row["x0"]), tiles):
            given = {
                name: _filled(array[start:stop], tile) for name, array in by_row.items()
            }
            parts.append((stop - start, self._tile(model, shape, plan, given, tile)))
        if len(parts) == 1:
            count, part = parts[0]
            return {name: np.asarray(array)[:count] for name, array in part.items()}
        return {
            name: np.concatenate(
                [np.asarray(part[name])[:count] for count, part in parts]
            )
            for name in parts[0][1]
        }

    def _tile(
        self, model: Model, shape: Shape, plan: Plan, given: Arrays, tile: int
    ) -> dict[str, Any]:
        function = model.functions[shape.operation]
        if (shape, tile) in model.compiled:
            return function(model.arrays, plan, given)
        began = time.perf_counter()
        result = function(model.arrays, plan, given)
        model.compiled.add((shape, tile))
        self.counters.compilations += 1
        self.counters.compile_seconds += time.perf_counter() - began
        return result

    def _load(self, digest: str) -> Model:
        with tempfile.TemporaryDirectory(prefix="spnode-") as folder:
            path = Path(folder) / "artifact.spnode"
            self._blobs.download(f"artifacts/{digest}", path)
            try:
                surrogate = artifact.load(path, digest=digest)
            except ArtifactError as error:
                raise Damaged(f"artifact {digest} cannot be served: {error}") from error
        arrays, static = eqx.partition(surrogate, eqx.is_array)
        arrays = jax.device_put(arrays)
        size = sum(leaf.nbytes for leaf in jax.tree_util.tree_leaves(arrays))
        functions = {name: make(static) for name, make in OPERATIONS.items()}
        return Model(digest, surrogate, functions, arrays, size)


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


def _shape(operation: str, plan: Plan, by_row: Arrays) -> Shape:
    return Shape(
        operation,
        (plan.on_grid, plan.steps, plan.outputs, len(plan.distinct)),
        tuple((name, array.shape[1:]) for name, array in sorted(by_row.items())),
    )


def _same_bits(one: Arrays, other: Arrays) -> bool:
    return all(array.tobytes() == other[name].tobytes() for name, array in one.items())


def _probe(model: Model) -> Arrays:
    """One row inside the training domain, at the model's own times."""
    signature, grid = model.surrogate.signature, model.grid
    times = grid.times[1:] if grid.uniform is None else grid.uniform * np.arange(1, 33)
    sizes: dict[str, tuple[int, ...]] = {"x0": (len(signature.states),)}
    if signature.parameters:
        sizes["parameters"] = (len(signature.parameters),)
    arrays: Arrays = {"times": times}
    if signature.controls:
        sizes["controls"] = (1, len(signature.controls))
        arrays["control_times"] = np.zeros(1)
    shape = Shape("rollout", (True, 0, 0, 0), tuple(sizes.items()))
    rows = _random_rows(model, shape)
    return arrays | {name: array[:1] for name, array in rows.items()}


def _random_rows(model: Model, shape: Shape) -> Arrays:
    """A tile of different rows: inputs in the training domain, directions anywhere."""
    domain = model.surrogate.signature.domain
    bounds = {
        "x0": (domain.lower, domain.upper),
        "parameters": (domain.parameters_lower, domain.parameters_upper),
        "controls": (domain.controls_lower, domain.controls_upper),
    }
    draws = np.random.default_rng(0)
    rows: Arrays = {}
    for name, axes in shape.rows:
        lower, upper = (np.array(each) for each in bounds.get(name, (-1.0, 1.0)))
        uniform = draws.uniform(size=(TILES[-1], *axes))
        rows[name] = lower + (upper - lower) * uniform
    return rows
