"""The second stage: full-batch L-BFGS in float64.

Each iteration evaluates loss and gradient once, at a trial point of a line search that
takes the unit step first and brackets by doubling and halving until the weak Wolfe
conditions hold. One place of evaluation compiles in a third of the time of nested
searches, and any number of iterations can be a chunk.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from spnode_core.samples import Problem
from spnode_core.spec import TrainingSpec
from spnode_core.surrogate import Surrogate, cast_networks
from spnode_core.training.descent import Leaves, Parts
from spnode_core.training.losses import training_loss
from spnode_core.training.stages import StageName, State, Values, first_state

# 256 rows at once leave the cache: in tiles of 64 an evaluation takes half the time.
_TILE = 64
_MEMORY = 50
_MOST_TRIALS = 25
_DECREASE, _CURVATURE = 1e-4, 0.9
_VALIDATIONS_WITHOUT_GAIN = 5

Vector = Float[Array, " parameter"]
Evaluate = Callable[[Vector], tuple[Float[Array, ""], Vector]]


class Search(NamedTuple):
    """Where the line search is: the last accepted point and the trial beyond it."""

    memory: optax.OptState
    loss: Float[Array, ""]
    gradient: Vector
    direction: Vector
    step: Float[Array, ""]
    low: Float[Array, ""]
    high: Float[Array, ""]
    trials: Int[Array, ""]


class Polish:
    """Quasi-Newton iterations on all parameters as one float64 vector.

    Args:
        members: Where the stage begins; they iterate together, each by itself.
        spec: Number of iterations and loss.
        problem: At most ``MOST_TRAJECTORIES`` training trajectories.
        validation: Trajectories to choose the best parameters by.

    Source:
        Liu & Nocedal (1989), Math. Program. 45, 503-528 (L-BFGS); Lewis & Overton
        (2013), Math. Program. 141, 135-163, Algorithm 2.6 (the line search).
    """

    name: StageName = "polish"

    def __init__(
        self,
        members: Sequence[Surrogate],
        spec: TrainingSpec,
        problem: Problem,
        validation: Problem,
    ) -> None:
        self._dtypes = [leaf.dtype for leaf in Parts(members).first]
        double = jnp.dtype(jnp.float64)
        self.parts = Parts([cast_networks(each, double) for each in members])
        self.iterations = spec.polish_iterations
        self.validate_every = max(1, min(20, spec.polish_iterations // 5))
        self.patience: int | None = _VALIDATIONS_WITHOUT_GAIN * self.validate_every
        self._problem, self._validation = problem, validation
        self._unravel = ravel_pytree(self.parts.first)[1]
        self._memory = optax.scale_by_lbfgs(memory_size=_MEMORY)
        over = self.parts.over
        advance = over(self._iterations(spec), (0, None, None, None))
        self._advance = jax.jit(advance, donate_argnums=0)
        self._validate = jax.jit(over(self._loss, (0, None, None)))

    def start(self) -> State:
        """The state before the first iteration: a trial at the first point itself."""
        return self.parts.over(self._start)(self.parts.trained)

    def _start(self, trained: Leaves) -> State:
        first = ravel_pytree(trained)[0]
        zero = jnp.zeros_like(first)
        search = Search(
            memory=self._memory.init(first),
            loss=jnp.array(jnp.inf),
            gradient=zero,
            direction=zero,
            step=jnp.array(0.0),
            low=jnp.array(0.0),
            high=jnp.array(jnp.inf),
            trials=jnp.array(0),
        )
        return first_state(first, search)

    def members(self, parameters: Array) -> list[Surrogate]:
        """The surrogates of parameter vectors, networks in their own dtype again."""
        return [self._whole(vector) for vector in self.parts.apart(parameters)]

    def _whole(self, vector: Vector) -> Surrogate:
        trained = [
            leaf.astype(dtype)
            for leaf, dtype in zip(self._unravel(vector), self._dtypes, strict=True)
        ]
        return self.parts.whole(trained, self.parts.fixed)

    def advance(self, state: State, count: int) -> State:
        """Run some iterations; the state passed in is used up."""
        return self._advance(state, self.parts.fixed, self._problem, jnp.int32(count))

    def validate(self, parameters: Array) -> Values:
        """Loss of each member on the validation trajectories."""
        found = self._validate(parameters, self.parts.fixed, self._validation)
        return np.atleast_1d(found)

    def learning_rate(self, iteration: int) -> None:
        """None: the line search finds the step."""

    def _loss(
        self,
        vector: Vector,
        fixed: Leaves,
        problem: Problem,
        reconstruction: float = 0.0,
        consistency: float = 0.0,
    ) -> Float[Array, ""]:
        surrogate = self.parts.whole(self._unravel(vector), fixed)
        return training_loss(
            surrogate,
            problem,
            reconstruction=reconstruction,
            consistency=consistency,
        )

    def _iterations(self, spec: TrainingSpec) -> Callable[..., State]:
        def advance(
            state: State, fixed: Leaves, problem: Problem, count: Int[Array, ""]
        ) -> State:
            def of_rows(
                vector: Vector, rows: Problem
            ) -> tuple[Float[Array, ""], Vector]:
                loss = jax.value_and_grad(self._loss)
                weights = (spec.reconstruction, spec.consistency)
                return loss(vector, fixed, rows, *weights)

            def evaluate(vector: Vector) -> tuple[Float[Array, ""], Vector]:
                return _finite(*_in_tiles(lambda rows: of_rows(vector, rows), problem))

            def iterate(_: Int[Array, ""], state: State) -> State:
                return _iteration(state, evaluate, self._memory)

            return jax.lax.fori_loop(0, count, iterate, state)

        return advance


def _in_tiles(
    evaluate: Callable[[Problem], tuple[Float[Array, ""], Vector]], problem: Problem
) -> tuple[Float[Array, ""], Vector]:
    """Mean of loss and gradient over the trajectories, some of them at a time."""
    total = problem.samples.x0.shape[0]
    tiles, rest = divmod(total, _TILE)
    if tiles == 0 or (tiles == 1 and rest == 0):
        return evaluate(problem)
    index = jnp.arange(tiles * _TILE).reshape(tiles, _TILE)
    losses, gradients = jax.lax.map(lambda i: evaluate(problem.rows(i)), index)
    loss, gradient = losses.sum() * _TILE, gradients.sum(axis=0) * _TILE
    if rest:
        last_loss, last = evaluate(problem.rows(jnp.arange(tiles * _TILE, total)))
        loss, gradient = loss + last_loss * rest, gradient + last * rest
    return loss / total, gradient / total


def _finite(
    loss: Float[Array, ""], gradient: Vector
) -> tuple[Float[Array, ""], Vector]:
    """An infinite loss, which no search accepts, where anything is not finite."""
    good = jnp.isfinite(loss) & jnp.isfinite(gradient).all()
    return jnp.where(good, loss, jnp.inf), jnp.where(good, gradient, 0.0)


def _iteration(
    state: State, evaluate: Evaluate, memory: optax.GradientTransformation
) -> State:
    search: Search = state.optimiser
    trial = state.parameters + search.step * search.direction
    loss, gradient = evaluate(trial)
    slope = jnp.vdot(search.gradient, search.direction)
    fell = loss <= search.loss + _DECREASE * search.step * slope
    flattened = jnp.vdot(gradient, search.direction) >= _CURVATURE * slope
    is_first = search.step == 0
    accepted = jnp.isfinite(loss) & ((fell & flattened) | is_first)
    gave_up = ~accepted & (search.trials + 1 >= _MOST_TRIALS)
    moved = jnp.where(accepted, trial, state.parameters)
    search = jax.lax.cond(
        accepted | gave_up,
        lambda: _next_direction(moved, search, loss, gradient, gave_up, memory),
        lambda: _next_trial(search, fell),
    )
    return State(
        moved,
        search,
        iteration=state.iteration + 1,
        loss_sum=state.loss_sum + jnp.where(accepted, loss, search.loss),
        counted=state.counted + 1,
        skipped=jnp.where(jnp.isfinite(search.loss), 0, state.skipped + 1),
    )


def _next_direction(
    point: Vector,
    search: Search,
    loss: Float[Array, ""],
    gradient: Vector,
    gave_up: Bool[Array, ""],
    memory: optax.GradientTransformation,
) -> Search:
    """From an accepted point, or down the gradient without memory if none was found."""
    loss = jnp.where(gave_up, search.loss, loss)
    gradient = jnp.where(gave_up, search.gradient, gradient)
    empty = memory.init(point)
    kept = jax.tree.map(lambda a, b: jnp.where(gave_up, a, b), empty, search.memory)
    scaled, kept = memory.update(gradient, kept, point)
    return search._replace(
        memory=kept,
        loss=loss,
        gradient=gradient,
        direction=-jnp.asarray(scaled),
        step=jnp.ones_like(search.step),
        low=jnp.zeros_like(search.low),
        high=jnp.full_like(search.high, jnp.inf),
        trials=jnp.zeros_like(search.trials),
    )


def _next_trial(search: Search, fell: Bool[Array, ""]) -> Search:
    """Halve the bracket where the step was too long, double it where too short."""
    low = jnp.where(fell, search.step, search.low)
    high = jnp.where(fell, search.high, search.step)
    step = jnp.where(jnp.isfinite(high), (low + high) / 2, 2 * low)
    return search._replace(step=step, low=low, high=high, trials=search.trials + 1)
