"""Minibatches with Adam or Muon: the stages before the polish."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from spnode_core.spec import TrainingSpec
from spnode_core.surrogate import Surrogate, trainable
from spnode_core.training.objectives import Objective
from spnode_core.training.optimisers import (
    create_optimiser,
    learning_rate,
    weight_flags,
)
from spnode_core.training.stages import StageName, State, first_state

Leaves = list[Array]


class Parts:
    """A surrogate taken apart: trained arrays, other arrays, and everything else."""

    def __init__(self, surrogate: Surrogate) -> None:
        trained, rest = eqx.partition(surrogate, trainable(surrogate))
        fixed, static = eqx.partition(rest, eqx.is_array)
        with_paths, self._trained_tree = jax.tree_util.tree_flatten_with_path(trained)
        self.paths = [jax.tree_util.keystr(path) for path, _ in with_paths]
        self.trained: Leaves = [leaf for _, leaf in with_paths]
        self.fixed, self._fixed_tree = jax.tree.flatten(fixed)
        self._static = static

    def whole(self, trained: Leaves, fixed: Leaves) -> Surrogate:
        """The surrogate of these arrays."""
        return eqx.combine(
            jax.tree.unflatten(self._trained_tree, trained),
            jax.tree.unflatten(self._fixed_tree, fixed),
            self._static,
        )


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Which iterations of a schedule a stage runs.

    Args:
        first: Number of the first.
        iterations: How many.
    """

    first: int
    iterations: int


class Descent:
    """Minibatch iterations, each of which draws its rows by its own number.

    Args:
        name: What the stage is called.
        surrogate: Where it begins.
        spec: Optimiser and schedule.
        stretch: The iterations of the schedule that it runs.
        objective: Data and loss.
        key: Source of the minibatches.
    """

    def __init__(
        self,
        name: StageName,
        surrogate: Surrogate,
        spec: TrainingSpec,
        stretch: Stretch,
        objective: Objective,
        key: PRNGKeyArray,
    ) -> None:
        self.name: StageName = name
        self.parts = Parts(surrogate)
        self.iterations = stretch.iterations
        self.validate_every = max(1, min(stretch.iterations // 60, 500))
        self.patience = spec.stop_when.patience if spec.stop_when else None
        self._objective, self._key = objective, key
        rate = learning_rate(spec)
        self._rate = lambda count: rate(count + stretch.first)
        flags = weight_flags(self.parts.paths, self.parts.trained)
        self._optimiser = create_optimiser(spec, flags, self._rate)
        self._advance = jax.jit(self._chunk, donate_argnums=0)
        self._validate = jax.jit(self._validation)

    def start(self) -> State:
        """The state before the first iteration."""
        trained = self.parts.trained
        return first_state(trained, self._optimiser.init(trained))

    def surrogate(self, parameters: Leaves) -> Surrogate:
        """The surrogate of the trained arrays."""
        return self.parts.whole(parameters, self.parts.fixed)

    def advance(self, state: State, count: int) -> State:
        """Run some iterations; the state passed in is used up."""
        data = self._objective.data
        return self._advance(state, self.parts.fixed, data, self._key, jnp.int32(count))

    def validate(self, parameters: Leaves) -> float:
        """Loss on what is held out."""
        data = self._objective.validation
        return float(self._validate(parameters, self.parts.fixed, data))

    def learning_rate(self, iteration: int) -> float:
        """Learning rate at an iteration."""
        return float(np.asarray(self._rate(iteration)))

    def _validation(
        self, trained: Leaves, fixed: Leaves, data: Any
    ) -> Float[Array, ""]:
        return self._objective.validation_loss(self.parts.whole(trained, fixed), data)

    def _chunk(
        self,
        state: State,
        fixed: Leaves,
        data: Any,
        key: PRNGKeyArray,
        count: Int[Array, ""],
    ) -> State:
        def loss_of(trained: Leaves, batch: Any) -> Float[Array, ""]:
            return self._objective.loss(self.parts.whole(trained, fixed), batch)

        def iterate(_: Int[Array, ""], state: State) -> State:
            draw = jax.random.fold_in(key, state.iteration)
            batch = self._objective.batch(data, draw)
            return _iterate(state, batch, jax.value_and_grad(loss_of), self._optimiser)

        return jax.lax.fori_loop(0, count, iterate, state)


def _iterate(
    state: State,
    batch: Any,
    evaluate: Callable[[Leaves, Any], tuple[Float[Array, ""], Leaves]],
    optimiser: optax.GradientTransformation,
) -> State:
    """One update, or none where loss or gradient is not finite."""
    loss, gradient = evaluate(state.parameters, batch)
    good = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(gradient))
    updates, optimiser_state = optimiser.update(
        gradient, state.optimiser, state.parameters
    )
    parameters = optax.apply_updates(state.parameters, updates)
    kept = _where(
        good,
        (parameters, optimiser_state),
        (state.parameters, state.optimiser),
    )
    return State(
        *kept,
        iteration=state.iteration + 1,
        loss_sum=state.loss_sum + jnp.where(good, loss, 0.0),
        counted=state.counted + good,
        skipped=jnp.where(good, 0, state.skipped + 1),
    )


def _where(condition: Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)
