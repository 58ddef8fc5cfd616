"""Computes batches of rollouts and their derivatives with resident, compiled models.

Rows run in tiles of 2, 8 or 32, larger batches in several, so **a row's bits depend
neither on its neighbours nor on the size of its batch**. Matrix products of other sizes
may round differently, so a shape is computed in tiles of 32 until other tiles have
shown, on random rows, that they give the same bits and are worth it; that is tried when
the engine is idle, for tiles of up to 256 rows once a batch would fill them. Batches
that ask for throughput have those at once, without that promise. Tiles take turns on
the devices; a CPU computes as many as it has cores.

Threads may share an engine, so that loading and compiling hold up no batch that is
ready: some call ``run``, another one ``prepare``, ``warm`` and ``idle``. With
``loaded``, ``operations`` and ``training/run``, all of the services that imports JAX.
"""

import gc
import logging
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from services.blobs import Blobs, Damaged
from services.devices import bytes_in_use, configure_jax, cores, worth_at_a_time
from services.errors import Unavailable
from services.metrics import compute_seconds
from services.rollouts.counters import Counters
from services.rollouts.executor import NotReady
from services.rollouts.loaded import Model
from services.rollouts.plans import Plans, Stepped
from services.rollouts.programs import Programs
from services.rollouts.remembered import Remembered, example_plan
from services.rollouts.request import Arrays
from services.rollouts.resident import Resident
from services.rollouts.shapes import Shape, trimmed
from services.rollouts.threads import on_threads
from services.rollouts.tiles import (
    TILES,
    WORTH_A_THREAD,
    filled,
    is_worth_it,
    joined,
    larger_tiles,
    pieces,
    round_alike,
    rows_to_compare,
    some,
)
from services.rollouts.work import USUAL, Variant
from services.settings import MIB, Settings
from services.versions import ARTIFACTS
from spnode_core import artifact
from spnode_core.errors import ArtifactError

_LOG = logging.getLogger(__name__)
# Makes times of a grid to times beside it.
_OFF_GRID = 0.997
# Shapes whose first tile takes more are not remembered.
_REMEMBERED_BYTES = 256 * MIB


class Engine:
    """Runs batches.

    Args:
        settings: Memory limits and the folder of the compilation cache.
        blobs: Where artifacts are fetched from, by digest.
    """

    def __init__(self, settings: Settings, blobs: Blobs) -> None:
        configure_jax(settings)
        self._blobs = blobs
        self._tile_bytes = settings.tile_bytes
        self._resident = Resident(self._load, settings.resident_bytes)
        self._remembered = Remembered(settings.data_folder / "shapes")
        self._at_a_time, self._cores = worth_at_a_time(), cores()
        self.batches_at_a_time = self._cores
        self.counters = Counters()
        self._programs = Programs(self._resident, settings.resident_programs)
        self._changing = self._programs.changing

    @property
    def resident(self) -> Resident[Model]:
        """The models that are loaded."""
        return self._resident

    def run(
        self,
        operation: str,
        digest: str,
        arrays: Arrays,
        variant: Variant = USUAL,
        *,
        only_ready: bool = False,
    ) -> Arrays:
        """Compute a batch.

        Args:
            operation: One of ``services.rollouts.operations``.
            digest: The artifact.
            arrays: ``x0 (row, state)``, ``times (time,)``; where the model takes them
                ``parameters``, ``controls`` (by row) and ``control_times``; for jvp
                ``tangents.x0`` and so on, for vjp ``cotangents (row, k, time, state)``.
            variant: How it is computed.
            only_ready: Do not load or compile, which takes seconds.

        Returns:
            What the operation gives, by row: ``x (row, time, state)``,
            ``gradients.x0`` and so on.

        Raises:
            NotReady: It is to be prepared first, and only what is ready was asked for.
            InvalidInput: By its size not even the smallest tile may be computed.
            Unavailable: The device's memory does not hold the smallest tile.
        """
        model = self._resident.find(digest)
        if model is None:
            if only_ready:
                raise NotReady
            model = self._resident.get(digest)
        plans, by_row, shape = model.shaped(operation, arrays, variant)
        if shape not in model.tiles:
            if only_ready:
                raise NotReady
            self._prepare(model, shape, plans, len(arrays["x0"]))
        self._grow(model, shape, plans, len(arrays["x0"]))
        self.counters.begun(len(arrays["x0"]))
        began = model.asked[shape.program] = time.monotonic()
        results = self._computed(model, shape, plans, by_row)
        compute_seconds(operation).observe(time.monotonic() - began)
        return trimmed(results, arrays, operation)

    def prepare(
        self, operation: str, digest: str, arrays: Arrays, variant: Variant = USUAL
    ) -> None:
        """Load and compile what a batch waits for.

        Raises:
            NotFound, Damaged: It cannot be served.
        """
        model = self._resident.get(digest)
        plans, _, shape = model.shaped(operation, arrays, variant)
        if shape not in model.tiles:
            self._prepare(model, shape, plans, len(arrays["x0"]))

    def warm(self, digest: str) -> None:
        """Load a version and compile what most callers ask for, and what was asked for.

        Their smaller tiles are left to ``idle``.
        """
        for step in self.warming(digest):
            step()

    def warming(self, digest: str) -> list[Callable[[], None]]:
        """The same in steps, of which a request need not wait for all."""
        model = self._resident.get(digest)
        probe = model.probe()
        own = probe["times"]

        def usual(times: np.ndarray) -> None:
            given = probe | {"times": times}
            plans, _, shape = model.shaped("rollout", given, USUAL)
            self._compile(model, shape, plans)

        def asked(shape: Shape) -> None:
            self._compile(model, shape, Plans(example_plan(model.grid, shape)))

        # The own grid, its end alone, and as many times off the grid.
        grids = (own, own[-1:], own * _OFF_GRID)
        return [
            *(partial(usual, times) for times in grids),
            *(
                partial(asked, shape)
                for shape in reversed(self._remembered.shapes(model.architecture))
            ),
        ]

    def idle(self) -> bool:
        """Try one more tile of one shape; whether there was one to try."""
        untried = self._programs.next_untried()
        if untried is not None:
            self._try(*untried)
        return untried is not None

    def pin(self, digests: frozenset[str]) -> None:
        """Keep these versions loaded, whatever memory they take."""
        self._resident.pin(digests)

    def figures(self) -> dict[str, int]:
        """What was counted since it began, and what is loaded now."""
        return {
            "compilations": self.counters.compilations,
            "compilations_on_request": self.counters.compilations_on_request,
            "models_loaded": self._resident.loads,
            "models_evicted": self._resident.evictions,
            "models_resident": len(self._resident.digests),
            "resident_bytes": self._resident.size_bytes,
            "resident_programs": self._programs.count,
            "memory_mappings": self._programs.mappings,
            "device_bytes": bytes_in_use(),
        }

    def _prepare(self, model: Model, shape: Shape, plans: Plans, rows: int) -> None:
        """Compile a shape that a batch of so many rows waits for."""
        before = self.counters.compilations
        model.asked[shape.program] = time.monotonic()  # so that it is not let go of
        self._compile(model, shape, plans, rows)
        self._programs.evict()
        self.counters.compilations_on_request += self.counters.compilations - before
        # What takes long once would hold up every later start.
        largest = model.allowed(shape, self._tile_bytes)[-1]
        if model.tile_bytes(shape, largest) <= _REMEMBERED_BYTES:
            self._remembered.add(model.architecture, shape)

    def _compile(
        self, model: Model, shape: Shape, plans: Plans, rows: int | None = None
    ) -> None:
        """Make a shape ready in one tile, and leave its others to ``idle``.

        Where no rows wait for it, it is left out if programs leave little room.
        """
        is_left_out = rows is None and not self._programs.have_room_ahead
        if shape in model.tiles or is_left_out:
            return
        tiles = model.allowed(shape, self._tile_bytes)
        first = {tiles[-1]}
        if shape.variant.throughput and rows is not None:
            first.add(min((tile for tile in tiles if tile >= rows), default=tiles[-1]))
        model.form(shape.variant)
        self._resident.evict()
        for tile in first:
            given = model.random_rows(shape, tile * len(plans))
            try:
                steps = model.steps.stepped(plans)
                self._in_tiles(model, shape, steps, given, (tile,))
            except jax.errors.JaxRuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                # The batch itself finds the tile that fits.
        with self._changing:
            model.untried += [(shape, plans, t) for t in tiles if t not in first]
        model.tiles[shape] = tuple(sorted(first))

    def _grow(self, model: Model, shape: Shape, plans: Plans, rows: int) -> None:
        """Leave larger tiles to ``idle``, where a batch fills several of the usual."""
        largest = model.tiles.get(shape, (0,))[-1]
        if shape.variant.throughput or not largest == TILES[-1] < rows:
            return
        with self._changing:
            if shape in model.grown:
                return
            model.grown.add(shape)
            # They are tried beside batches, which need memory, too.
            for tile in larger_tiles(shape.operation):
                if model.tile_bytes(shape, tile) <= self._tile_bytes // 4:
                    model.untried.append((shape, plans, tile))

    def _try(self, model: Model, shape: Shape, plans: Plans, tile: int) -> None:
        """Admit a tile; where bits are promised, if it gives those of the largest."""
        tiles = model.tiles.get(shape, ())
        if not tiles or tile in tiles:
            return  # shapes may be let go of meanwhile
        size = max(tiles[-1], tile * len(plans))
        rows = model.random_rows(shape, max(size, rows_to_compare(shape.input_bytes)))

        def computed(tile: int, rows: Arrays) -> Arrays:
            return self._in_tiles(model, shape, stepped, rows, (tile,))

        one, usual = (partial(computed, n) for n in (tile, tiles[-1]))
        try:
            stepped = model.steps.stepped(plans)
            if shape.variant.throughput:
                one(some(rows, size))
            elif not round_alike(one, usual, rows, size):
                return
            if not is_worth_it(one, usual, rows, tile, tiles[-1]):
                return
            model.tiles[shape] = tuple(sorted({*tiles, tile}))
        except jax.errors.JaxRuntimeError as error:
            if not _is_out_of_memory(error):
                _LOG.warning("tiles of %d rows are not used: %s", tile, error)

    def _computed(
        self, model: Model, shape: Shape, plans: Plans, by_row: Arrays
    ) -> Arrays:
        """All rows of a batch, in smaller tiles where the device's memory ends."""
        while True:
            # They may have been let go of since they were looked up.
            tiles = model.tiles.get(shape)
            tiles = tiles or model.allowed(shape, self._tile_bytes)[-1:]
            try:
                given = (model, shape, model.steps.stepped(plans), by_row, tiles)
                return self._in_tiles(*given, self._at_a_time)
            except jax.errors.JaxRuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                cause = str(error)
            largest, allowed = tiles[-1], model.allowed(shape, self._tile_bytes)
            # Those that are proven keep the bits; one that is not is better than none.
            smaller = tiles[:-1] or tuple(t for t in allowed if t < largest)[-1:]
            if not smaller:
                _LOG.error("out of device memory: %s", cause)
                raise Unavailable(
                    f"the device has too little memory for {largest} rows of this "
                    f"{shape.operation} with {shape.plan[1]} steps; ask for fewer "
                    "times or directions, or try again when less is running",
                    code="out_of_memory",
                )
            _LOG.warning("tiles of %d rows do not fit into memory", largest)
            with self._changing:
                model.tiles[shape] = smaller
                model.untried[:] = [t for t in model.untried if t[0] != shape]

    def _in_tiles(
        self,
        model: Model,
        shape: Shape,
        stepped: tuple[Stepped, ...],
        by_row: Arrays,
        tiles: tuple[int, ...],
        at_a_time: int = 1,
    ) -> Arrays:
        count = len(by_row["x0"])
        cut = pieces(count, tiles, self._cores if at_a_time > 1 else 1)

        def one(number: int, device: int) -> Arrays:
            start, stop, tile = cut[number]
            given = {
                name: filled(each[start:stop], tile) for name, each in by_row.items()
            }
            part = self._tile(model, shape, stepped[device], given, device)
            rows = stop - start
            return {name: np.asarray(each)[:rows] for name, each in part.items()}

        if len(cut) == 1:
            return one(0, 0)
        # Other batches may be computed beside this one.
        most = self._tile_bytes // self.batches_at_a_time
        most //= model.tile_bytes(shape, cut[0][2]) or 1
        rooms = [threading.BoundedSemaphore(max(1, most)) for _ in stepped]

        def in_turn(number: int) -> Arrays:
            # Devices take turns; plans and weights lie on each of them.
            device = number % len(rooms)
            with rooms[device]:
                return one(number, device)

        threads = min(at_a_time, max(1, count // WORTH_A_THREAD))
        return joined(on_threads(in_turn, len(cut), threads))

    def _tile(
        self, model: Model, shape: Shape, steps: Stepped, given: Arrays, device: int
    ) -> dict[str, Any]:
        form, tile = model.form(shape.variant), len(given["x0"])
        function = form.function(shape.program)
        if (shape, tile, device) in model.compiled:
            return function(form.arrays[device], steps, given)
        began = time.perf_counter()
        result = function(form.arrays[device], steps, given)
        model.compiled.add((shape, tile, device))
        self.counters.compilations += 1
        self.counters.compile_seconds += time.perf_counter() - began
        self._programs.counted()
        return result

    def _load(self, digest: str) -> Model:
        with tempfile.TemporaryDirectory(prefix="spnode-") as folder:
            path = Path(folder) / "artifact.spnode"
            self._blobs.download(f"{ARTIFACTS}/{digest}", path)
            try:
                surrogate = artifact.load(path, digest=digest)
            except ArtifactError as error:
                raise Damaged(f"artifact {digest} cannot be served: {error}") from error
        try:
            return Model.of(digest, surrogate)
        except jax.errors.JaxRuntimeError as error:
            if not _is_out_of_memory(error):
                raise
        # The limit on resident models was too high.
        self._resident.clear()
        gc.collect()
        try:
            return Model.of(digest, surrogate)
        except jax.errors.JaxRuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            raise Unavailable(
                f"the device has too little memory for the model {digest[:12]}",
                code="out_of_memory",
            ) from error


def _is_out_of_memory(error: Exception) -> bool:
    return "RESOURCE_EXHAUSTED" in str(error)
