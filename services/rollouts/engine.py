"""Computes batches of rollouts and their derivatives with resident, compiled models.

Rows run in tiles of 2, 8 or 32, larger batches as a loop over tiles of 32, so **a
row's bits depend neither on its neighbours nor on the size of its batch**. Matrix
products of other sizes may round differently, so a shape is computed in tiles of 32
until its smaller tiles have shown, on random rows, that they give the same bits; that
is tried when the engine is idle. Batches that ask for throughput run in tiles of up to
256 rows instead, without that promise.

With ``operations`` and ``training/run``, all of the services that imports JAX.
"""

import functools
import logging
import tempfile
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from services.blobs import Blobs, Damaged
from services.errors import Unavailable
from services.rollouts.canonical import USUAL, Variant
from services.rollouts.operations import OPERATIONS
from services.rollouts.request import Arrays
from services.rollouts.resident import Resident
from services.rollouts.shapes import Shape, padded_plan, padded_rows, trimmed
from services.rollouts.tiles import TILES, filled, pieces, same_bits, tiles_of
from services.settings import Settings
from spnode_core import artifact
from spnode_core.errors import ArtifactError
from spnode_core.surrogate import Surrogate, cast_networks
from spnode_core.timegrid import Plan, TimeGrid

_LOG = logging.getLogger(__name__)
# Makes times of a grid to times beside it.
_OFF_GRID = 0.997
# Plans that a model keeps on the device, by the times that they are for.
_KEPT_PLANS = 64
# Tiles on the device before the first of them is fetched.
_IN_FLIGHT = 4


@dataclass
class Counters:
    """What an engine has done since it began."""

    batches: int = 0
    rows: int = 0
    compilations: int = 0
    """Shapes that were met for the first time, warm-up included."""
    compile_seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Form:
    """What computes: compiled functions and the arrays that they take."""

    functions: dict[str, Callable[..., Any]]
    arrays: Any

    @classmethod
    def of(cls, surrogate: Surrogate) -> "Form":
        """Put a surrogate on the device."""
        arrays, static = eqx.partition(surrogate, eqx.is_array)
        functions = {name: make(static) for name, make in OPERATIONS.items()}
        return cls(functions, jax.device_put(arrays))


@dataclass
class Model:
    """A surrogate that is loaded, with the shapes that it has been compiled for."""

    digest: str
    surrogate: Surrogate
    forms: dict[bool, "Form"]
    """By whether networks are in float64; that one is made when it is asked for."""
    tiles: dict[Shape, tuple[int, ...]] = field(default_factory=dict)
    compiled: set[tuple[Shape, int]] = field(default_factory=set)
    plans: OrderedDict[bytes, Plan] = field(default_factory=OrderedDict)
    unproven: list[tuple[Shape, Plan, int]] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        """Bytes of its arrays, in all the forms that were made."""
        leaves = jax.tree.leaves([form.arrays for form in {*self.forms.values()}])
        return sum(leaf.nbytes for leaf in leaves)

    def form(self, variant: Variant) -> Form:
        """The networks in the dtype that a variant asks for."""
        if variant.double not in self.forms:
            double = cast_networks(self.surrogate, np.float64)
            self.forms[variant.double] = Form.of(double)
        return self.forms[variant.double]

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
        plan = padded_plan(self.grid, self.grid.plan(times, control_times))
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
            operation: One of ``services.rollouts.operations``.
            digest: The artifact.
            arrays: ``x0 (row, state)``, ``times (time,)``; where the model takes them
                ``parameters``, ``controls`` (by row) and ``control_times``; for jvp
                ``tangents.x0`` and so on, for vjp ``cotangents (row, k, time, state)``.
            variant: How it is computed.

        Returns:
            What the operation gives, by row: ``x (row, time, state)``,
            ``gradients.x0`` and so on.

        Raises:
            Unavailable: The device's memory does not hold the smallest tile.
        """
        model = self._resident.get(digest)
        rows = len(arrays["x0"])
        self.counters.batches += 1
        self.counters.rows += rows
        plan = model.plan(arrays["times"], arrays.get("control_times"))
        by_row = padded_rows(arrays, operation, plan.outputs)
        shape = Shape.of(operation, plan, by_row, variant)
        if shape not in model.tiles:
            self._meet(model, shape, plan)
        results = self._computed(model, shape, plan, by_row)
        return trimmed(results, arrays, operation)

    def _meet(self, model: Model, shape: Shape, plan: Plan) -> None:
        """Choose the tiles of a shape that is new, and count a form that it made."""
        if shape.variant.throughput:
            model.tiles[shape] = tiles_of(shape.operation, throughput=True)
        else:
            model.tiles[shape] = TILES[-1:]
            model.unproven += [(shape, plan, tile) for tile in TILES[:-1]]
        model.form(shape.variant)
        self._resident.evict()

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
        tiles = model.tiles[shape]
        if tile >= tiles[-1]:
            return
        rows = _random_rows(model, shape)
        whole = self._in_tiles(model, shape, plan, rows, tiles[-1:])
        if same_bits(whole, self._in_tiles(model, shape, plan, rows, (tile,))):
            model.tiles[shape] = tuple(sorted({*tiles, tile}))

    def _computed(
        self, model: Model, shape: Shape, plan: Plan, by_row: Arrays
    ) -> Arrays:
        """All rows of a batch, in smaller tiles where the device's memory ends."""
        while True:
            tiles = model.tiles[shape]
            try:
                return self._in_tiles(model, shape, plan, by_row, tiles)
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                cause = str(error)
            largest = tiles[-1]
            allowed = tiles_of(shape.operation, throughput=shape.variant.throughput)
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
            model.tiles[shape] = smaller

    def _in_tiles(
        self,
        model: Model,
        shape: Shape,
        plan: Plan,
        by_row: Arrays,
        tiles: tuple[int, ...],
    ) -> Arrays:
        # Dispatch is asynchronous: some tiles are on their way before one is fetched.
        waiting: deque[tuple[int, dict[str, Any]]] = deque()
        parts: list[Arrays] = []

        def fetch() -> None:
            count, part = waiting.popleft()
            parts.append(
                {name: np.asarray(each)[:count] for name, each in part.items()}
            )

        for start, stop, tile in pieces(len(by_row["x0"]), tiles):
            given = {
                name: filled(each[start:stop], tile) for name, each in by_row.items()
            }
            waiting.append((stop - start, self._tile(model, shape, plan, given, tile)))
            if len(waiting) > _IN_FLIGHT:
                fetch()
        while waiting:
            fetch()
        if len(parts) == 1:
            return parts[0]
        return {
            name: np.concatenate([part[name] for part in parts]) for name in parts[0]
        }

    def _tile(
        self, model: Model, shape: Shape, plan: Plan, given: Arrays, tile: int
    ) -> dict[str, Any]:
        form = model.form(shape.variant)
        function = form.functions[shape.operation]
        if (shape, tile) in model.compiled:
            return function(form.arrays, plan, given)
        began = time.perf_counter()
        result = function(form.arrays, plan, given)
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
        form = Form.of(surrogate)
        # Networks that are stored in float64 need no second form.
        same = surrogate.spec.precision == "float64"
        return Model(
            digest, surrogate, {False: form, True: form} if same else {False: form}
        )


def configure_jax(settings: Settings) -> None:
    """Set what JAX must know before its first computation: this is an entry point."""
    jax.config.update("jax_enable_x64", True)
    cache = settings.data_folder / "compiled"
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


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
    shape = Shape("rollout", (True, 0, 0, 0), tuple(sizes.items()), USUAL)
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
