"""A surrogate on the device: its compiled functions, its plans, its shapes.

A model is used by two threads: one computes, the other prepares what that one needs. A
shape is ready once ``tiles`` has it, which happens last.
"""

import functools
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import numpy as np

from services.rollouts.operations import OPERATIONS, Operation, turned
from services.rollouts.plans import Plans, Steps, Whole, on_devices
from services.rollouts.request import Arrays
from services.rollouts.shapes import Program, Shape, padded_rows
from services.rollouts.tiles import BACKWARDS, MOST_KEPT_BYTES, TILES, tiles_of
from services.rollouts.work import USUAL, Variant
from spnode_core.errors import InvalidInput
from spnode_core.spec import GridStepsSpec
from spnode_core.stepping import kept_bytes
from spnode_core.surrogate import Surrogate, cast_networks
from spnode_core.timegrid import TimeGrid


@dataclass(frozen=True, eq=False)
class Form:
    """What computes: compiled functions and the arrays that they take, by device.

    The arrays are a list: taking a surrogate apart costs each call some 20 us.
    """

    arrays: tuple[list[Any], ...]
    whole: Whole
    functions: dict[Program, Operation] = field(default_factory=dict)
    """One for each, so that what it has compiled goes with it."""

    @classmethod
    def of(cls, surrogate: Surrogate) -> "Form":
        """Put a surrogate on the device, with what no request changes worked out."""
        # Made here, so that what it compiles goes with it.
        ready = eqx.filter_jit(lambda given: turned(given.prepared()))(surrogate)
        arrays, static = eqx.partition(ready, eqx.is_array)
        leaves, structure = jax.tree.flatten(arrays)

        def whole(leaves: list[Any]) -> Surrogate:
            return turned(eqx.combine(jax.tree.unflatten(structure, leaves), static))

        return cls(on_devices(leaves), whole)

    def function(self, program: Program) -> Operation:
        """What computes it, in any tile."""
        found = self.functions.get(program)
        if found is None:
            made = OPERATIONS[program[0]](self.whole)
            found = self.functions.setdefault(program, made)
        return found


@dataclass
class Model:
    """A surrogate that is loaded, with the shapes that are ready."""

    digest: str
    surrogate: Surrogate
    forms: dict[bool, Form]
    """By whether networks are in float64; that one is made when it is asked for."""
    steps: Steps
    """The plans that were asked for."""
    tiles: dict[Shape, tuple[int, ...]] = field(default_factory=dict)
    """Shapes that are ready, and the tiles to compute them in."""
    compiled: set[tuple[Shape, int, int]] = field(default_factory=set)
    """Shape, tile and device."""
    untried: list[tuple[Shape, Plans, int]] = field(default_factory=list)
    """Other tiles of these shapes, to be tried when there is time."""
    grown: set[Shape] = field(default_factory=set)
    """Shapes whose larger tiles are among them, or were."""
    asked: dict[Program, float] = field(default_factory=dict)
    """When requests asked for programs last, by ``time.monotonic()``."""

    @classmethod
    def of(cls, digest: str, surrogate: Surrogate) -> "Model":
        """Put a surrogate on the device, its networks as they were stored."""
        form = Form.of(surrogate)
        # Networks that are stored in float64 need no second form.
        same = surrogate.spec.precision == "float64"
        forms = {False: form, True: form} if same else {False: form}
        steps = Steps(surrogate.grid, form.arrays, form.whole)
        return cls(digest, surrogate, forms, steps)

    @property
    def size_bytes(self) -> int:
        """Bytes of its arrays, in all the forms that were made, and of its plans."""
        leaves = jax.tree.leaves([form.arrays for form in {*self.forms.values()}])
        kept = self.steps.size_bytes * len(self.forms[False].arrays)
        return sum(leaf.nbytes for leaf in leaves) + kept

    @property
    def programs(self) -> int:
        """Compiled programs that it has."""
        return len(self.compiled)

    @property
    def kept(self) -> set[Program]:
        """What is compiled in some tile, of some form."""
        return {each for form in {*self.forms.values()} for each in [*form.functions]}

    def forget(self, program: Program) -> None:
        """Let its tiles go: when it is asked for again, it is compiled again."""
        self.asked.pop(program, None)
        for shape in [each for each in [*self.tiles] if each.program == program]:
            self.tiles.pop(shape, None)
            self.grown.discard(shape)
        self.untried[:] = [t for t in self.untried if t[0].program != program]
        self.compiled -= {t for t in [*self.compiled] if t[0].program == program}
        for form in {*self.forms.values()}:
            form.functions.pop(program, None)
        # Numbers of outputs and of distinct steps.
        plans = [shape.plan for shape in [*self.tiles]]
        self.steps.forget({count for plan in plans for count in plan[2:]})

    def next_untried(self, *, only_asked: bool) -> tuple[Shape, Plans, int] | None:
        """Take a tile off those that are to be tried, maybe of what was asked for."""
        for number, (shape, _, _) in enumerate(self.untried):
            if not only_asked or shape.program in self.asked:
                return self.untried.pop(number)
        return None

    @property
    def grid(self) -> TimeGrid:
        """The grid of times on which the model steps."""
        return self.steps.grid

    @functools.cached_property
    def architecture(self) -> str:
        """What versions share whose shapes are the same: a hash of sizes and kinds."""
        spec, signature = self.surrogate.spec, self.surrogate.signature
        fields = spec.model_dump(mode="json", exclude={"normalisation", "conserved"})
        fields["linear"].pop("rates", None)
        if isinstance(spec.steps, GridStepsSpec):
            fields["steps"] = len(spec.steps.times)
        fields["sizes"] = [
            len(names)
            for names in (signature.states, signature.parameters, signature.controls)
        ]
        fields["sums"] = len(spec.conserved)
        if signature.members > 1:
            fields["members"] = signature.members
        if signature.domain.neighbours:
            fields["neighbours"] = signature.domain.neighbours
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    def form(self, variant: Variant) -> Form:
        """The networks in the dtype that a variant asks for."""
        if variant.double not in self.forms:
            double = cast_networks(self.surrogate, np.float64)
            self.forms[variant.double] = Form.of(double)
        return self.forms[variant.double]

    def shaped(
        self, operation: str, arrays: Arrays, variant: Variant
    ) -> tuple[Plans, Arrays, Shape]:
        """The plan of a batch, its arrays by row, padded, and what is compiled."""
        plans = self.steps.planned(arrays["times"], arrays.get("control_times"))
        by_row = padded_rows(arrays, operation, plans.plan.outputs)
        return plans, by_row, Shape.of(operation, plans.plan, by_row, variant)

    def allowed(self, shape: Shape, limit_bytes: int) -> tuple[int, ...]:
        """The tiles that a shape may use, by the memory that its rows take.

        Raises:
            InvalidInput: They take too much in the smallest.
        """
        tiles = tiles_of(shape.operation, throughput=shape.variant.throughput)
        fitting = tuple(
            tile for tile in tiles if self.tile_bytes(shape, tile) <= limit_bytes
        )
        if not fitting:
            _, steps, outputs, _ = shape.plan
            least = self.tile_bytes(shape, tiles[0])
            raise InvalidInput(
                "times",
                found=f"{steps} steps and {outputs} times, of which {tiles[0]} rows of "
                f"a {shape.operation} take about {least >> 20} MiB",
                expected=f"at most {limit_bytes >> 20} MiB (SPNODE_TILE_BYTES): an "
                "earlier end, fewer times or fewer directions",
            )
        return fitting

    def tile_bytes(self, shape: Shape, rows: int) -> int:
        """About the memory that so many rows of a shape take while they are computed.

        States on the grid and at the outputs, for each direction; where derivatives go
        backwards, what each step keeps for them, unless it is computed again.
        """
        _, steps, outputs, _ = shape.plan
        signature = self.surrogate.signature
        states, latent = len(signature.states), signature.latent
        axes = dict(shape.rows)
        directions = [
            sizes[0] for name, sizes in axes.items() if name.startswith("tangents.")
        ]
        many = 1 + max(directions, default=0)
        if shape.operation == "vjp":
            many = 1 + axes["cotangents"][0]
        numbers = 2 * many * (steps * latent + outputs * (latent + states))
        size = 8 * numbers * signature.members * rows
        kept = self._kept_bytes * rows * steps
        if shape.operation in BACKWARDS and kept <= MOST_KEPT_BYTES:
            # Of hvp a derivative of all that is kept lies beside it.
            size += kept * (many if shape.operation == "hvp" else 1)
        return size

    @functools.cached_property
    def _kept_bytes(self) -> int:
        """Of one step of a row: batches of several tiles ask for it each time."""
        return kept_bytes(self.surrogate, 1, 1)

    def own_times(self) -> np.ndarray:
        """The times of its own grid; of an endless one the first 32."""
        if self.grid.uniform is None:
            return self.grid.times[1:]
        return self.grid.uniform * np.arange(1, 33)

    def probe(self) -> Arrays:
        """One row inside the training domain, at the model's own times."""
        signature = self.surrogate.signature
        sizes: dict[str, tuple[int, ...]] = {"x0": (len(signature.states),)}
        if signature.parameters:
            sizes["parameters"] = (len(signature.parameters),)
        arrays: Arrays = {"times": self.own_times()}
        if signature.controls:
            sizes["controls"] = (1, len(signature.controls))
            arrays["control_times"] = np.zeros(1)
        shape = Shape("rollout", (True, 0, 0, 0), tuple(sizes.items()), USUAL)
        rows = self.random_rows(shape, 1)
        return arrays | rows

    def random_rows(self, shape: Shape, count: int = TILES[-1]) -> Arrays:
        """Different rows: inputs in the training domain, directions anywhere."""
        domain = self.surrogate.signature.domain
        bounds = {
            "x0": (domain.lower, domain.upper),
            "parameters": (domain.parameters_lower, domain.parameters_upper),
            "controls": (domain.controls_lower, domain.controls_upper),
        }
        draws = np.random.default_rng(0)
        rows: Arrays = {}
        for name, axes in shape.rows:
            lower, upper = (np.array(each) for each in bounds.get(name, (-1.0, 1.0)))
            uniform = draws.uniform(size=(count, *axes))
            rows[name] = lower + (upper - lower) * uniform
        return rows
