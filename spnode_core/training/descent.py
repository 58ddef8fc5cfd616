"""The first stage: minibatches with Adam or Muon."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from spnode_core.samples import Problem
from spnode_core.spec import TrainingSpec
from spnode_core.surrogate import Surrogate, trainable
from spnode_core.training.losses import training_loss
from spnode_core.training.optimisers import (
    create_optimiser,
    learning_rate,
    weight_flags,
)
from spnode_core.training.stages import State, first_state

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


class Descent:
    """Minibatch iterations, each of which draws its trajectories by its own number.

    Args:
        surrogate: Where training begins.
        spec: Optimiser, batch and loss.
        problem: Training trajectories.
        validation: Trajectories to choose the best parameters by.
        key: Source of the minibatches.
    """

    name: Literal["optimise"] = "optimise"

    def __init__(
        self,
        surrogate: Surrogate,
        spec: TrainingSpec,
        problem: Problem,
        validation: Problem,
        key: PRNGKeyArray,
    ) -> None:
        self.parts = Parts(surrogate)
        self.iterations = spec.iterations
        self.validate_every = max(1, min(spec.iterations // 60, 500))
        self.patience = spec.stop_when.patience if spec.stop_when else None
        self._problem, self._validation, self._key = problem, validation, key
        self._rate = learning_rate(spec)
        flags = weight_flags(self.parts.paths, self.parts.trained)
        self._optimiser = create_optimiser(spec, flags)
        self._advance = _compiled_descent(self.parts, self._optimiser, spec)
        self._validate = _compiled_validation(self.parts)

    def start(self) -> State:
        """The state before the first iteration."""
        trained = self.parts.trained
        return first_state(trained, self._optimiser.init(trained))

    def advance(self, state: State, count: int) -> State:
        """Run some iterations; the state passed in is used up."""
        return self._advance(
            state, self.parts.fixed, self._problem, self._key, jnp.int32(count)
        )

    def validate(self, parameters: Leaves) -> float:
        """Loss on the validation trajectories."""
        return float(self._validate(parameters, self.parts.fixed, self._validation))

    def learning_rate(self, iteration: int) -> float:
        """Learning rate at an iteration."""
        return float(np.asarray(self._rate(iteration)))


def _compiled_validation(
    parts: Parts,
) -> Callable[[Leaves, Leaves, Problem], Float[Array, ""]]:
    def validate(trained: Leaves, fixed: Leaves, problem: Problem) -> Float[Array, ""]:
        return training_loss(parts.whole(trained, fixed), problem)

    return jax.jit(validate)


def _compiled_descent(
    parts: Parts, optimiser: optax.GradientTransformation, spec: TrainingSpec
) -> Callable[..., State]:
    def loss_of(trained: Leaves, fixed: Leaves, problem: Problem) -> Float[Array, ""]:
        surrogate = parts.whole(trained, fixed)
        return training_loss(surrogate, problem, spec.reconstruction)

    def iterate(
        state: State, fixed: Leaves, problem: Problem, key: PRNGKeyArray
    ) -> State:
        batch = _minibatch(problem, spec.batch, key, state.iteration)
        loss, gradient = jax.value_and_grad(loss_of)(state.parameters, fixed, batch)
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

    def advance(
        state: State,
        fixed: Leaves,
        problem: Problem,
        key: PRNGKeyArray,
        count: Int[Array, ""],
    ) -> State:
        return jax.lax.fori_loop(
            0, count, lambda _, s: iterate(s, fixed, problem, key), state
        )

    return jax.jit(advance, donate_argnums=0)


def _minibatch(
    problem: Problem, size: int, key: PRNGKeyArray, iteration: Int[Array, ""]
) -> Problem:
    """Trajectories drawn without repetition by the number of the iteration."""
    total = problem.samples.x0.shape[0]
    if size >= total:
        return problem
    draw = jax.random.fold_in(key, iteration)
    return problem.rows(jax.random.choice(draw, total, (size,), replace=False))


def _where(condition: Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)
