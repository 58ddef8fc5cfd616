"""Minibatches with Adam or Muon: the stages before the polish."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from spnode_core.spec import TrainingSpec
from spnode_core.surrogate import Surrogate, trainable
from spnode_core.training.devices import on_one_device
from spnode_core.training.objectives import Objective
from spnode_core.training.optimisers import (
    create_optimiser,
    learning_rate,
    weight_flags,
)
from spnode_core.training.stages import StageName, State, Values, first_state

Leaves = list[Array]


class Parts:
    """Surrogates taken apart: trained arrays, other arrays, and everything else.

    Args:
        members: Surrogates that differ in trained arrays only, which get a leading axis
            where there are several.
    """

    def __init__(self, members: Sequence[Surrogate]) -> None:
        trained, rest = eqx.partition(members[0], trainable(members[0]))
        fixed, static = eqx.partition(rest, eqx.is_array)
        with_paths, self._trained_tree = jax.tree_util.tree_flatten_with_path(trained)
        self.paths = [jax.tree_util.keystr(path) for path, _ in with_paths]
        self.first: Leaves = [leaf for _, leaf in with_paths]
        self.fixed, self._fixed_tree = jax.tree.flatten(fixed)
        self._static = static
        self.count = len(members)
        others = [
            jax.tree.leaves(eqx.filter(each, trainable(each))) for each in members[1:]
        ]
        self.trained = self.joined([self.first, *others])

    def joined(self, members: list[Any]) -> Any:
        """Something of each member, with a leading axis where there are several."""
        if self.count == 1:
            return members[0]
        return jax.tree.map(lambda *each: jnp.stack(each), *members)

    def apart(self, joined: Any) -> list[Any]:
        """The same by member again."""
        if self.count == 1:
            return [joined]
        take = lambda number: jax.tree.map(lambda leaf: leaf[number], joined)  # noqa: E731
        return [take(number) for number in range(self.count)]

    def over(self, function: Callable[..., Any], axes: Any = 0) -> Callable[..., Any]:
        """A function of one member as one of all: under ``vmap`` where several are."""
        return function if self.count == 1 else jax.vmap(function, in_axes=axes)

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

    Members of an ensemble take each iteration together, under one ``vmap``, with rows
    of their own.

    Args:
        name: What the stage is called.
        members: Where it begins.
        spec: Optimiser and schedule.
        stretch: The iterations of the schedule that it runs.
        objective: Data and loss.
        keys: Source of the minibatches, for each member.
    """

    def __init__(
        self,
        name: StageName,
        members: Sequence[Surrogate],
        spec: TrainingSpec,
        stretch: Stretch,
        objective: Objective,
        keys: list[PRNGKeyArray],
    ) -> None:
        self.name: StageName = name
        self.parts = Parts(members)
        self.iterations = stretch.iterations
        self.validate_every = max(1, min(stretch.iterations // 60, 500))
        self.patience = spec.stop_when.patience if spec.stop_when else None
        self._objective, self._keys = objective, self.parts.joined(keys)
        rate = learning_rate(spec)
        self._rate = lambda count: rate(count + stretch.first)
        flags = weight_flags(self.parts.paths, self.parts.first)
        self._optimiser = create_optimiser(spec, flags, self._rate)
        over = self.parts.over
        advance = over(self._chunk, (0, None, None, 0, None))
        self._advance = jax.jit(advance, donate_argnums=0)
        self._validate = jax.jit(over(self._validation, (0, None, None)))

    def start(self) -> State:
        """The state before the first iteration."""
        init = lambda trained: first_state(trained, self._optimiser.init(trained))  # noqa: E731
        return self.parts.over(init)(self.parts.trained)

    def members(self, parameters: Leaves) -> list[Surrogate]:
        """The surrogates of the trained arrays, on one device."""
        each = self.parts.apart(on_one_device(parameters))
        return [self.parts.whole(trained, self.parts.fixed) for trained in each]

    def advance(self, state: State, count: int) -> State:
        """Run some iterations; the state passed in is used up."""
        data, keys = self._objective.data, self._keys
        return self._advance(state, self.parts.fixed, data, keys, jnp.int32(count))

    def validate(self, parameters: Leaves) -> Values:
        """Loss of each member on what is held out."""
        data = self._objective.validation
        return np.atleast_1d(self._validate(parameters, self.parts.fixed, data))

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
