"""The second stage: full-batch L-BFGS in float64."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from spnode_core.samples import Problem
from spnode_core.spec import TrainingSpec
from spnode_core.surrogate import Surrogate, cast_networks
from spnode_core.training.descent import Leaves, Parts
from spnode_core.training.losses import training_loss
from spnode_core.training.stages import State, first_state

MOST_TRAJECTORIES = 256
"""A full batch is at most so many trajectories; more cost time and gain nothing."""
_MEMORY = 50
_LINE_SEARCH_STEPS = 20
_NOT_FINITE = 1e30
_VALIDATIONS_WITHOUT_GAIN = 5

Vector = Float[Array, " parameter"]


class Polish:
    """Quasi-Newton iterations on all parameters as one float64 vector.

    Args:
        surrogate: Where the stage begins.
        spec: Number of iterations and loss.
        problem: At most ``MOST_TRAJECTORIES`` training trajectories.
        validation: Trajectories to choose the best parameters by.
    """

    name: Literal["polish"] = "polish"

    def __init__(
        self,
        surrogate: Surrogate,
        spec: TrainingSpec,
        problem: Problem,
        validation: Problem,
    ) -> None:
        self._dtypes = [leaf.dtype for leaf in Parts(surrogate).trained]
        self.parts = Parts(cast_networks(surrogate, jnp.dtype(jnp.float64)))
        self.iterations = spec.polish_iterations
        self.validate_every = max(1, min(20, spec.polish_iterations // 5))
        self.patience: int | None = _VALIDATIONS_WITHOUT_GAIN * self.validate_every
        self._problem, self._validation = problem, validation
        self._first, self._unravel = ravel_pytree(self.parts.trained)
        self._optimiser = optax.lbfgs(
            memory_size=_MEMORY,
            linesearch=optax.scale_by_zoom_linesearch(
                max_linesearch_steps=_LINE_SEARCH_STEPS,
                initial_guess_strategy="one",
            ),
        )
        self._advance = jax.jit(self._iterations(spec), donate_argnums=0)
        self._validate = jax.jit(self._loss_of(0.0))

    def start(self) -> State:
        """The state before the first iteration."""
        return first_state(self._first, self._optimiser.init(self._first))

    def surrogate(self, vector: Vector) -> Surrogate:
        """The surrogate of a parameter vector, networks in their own dtype again."""
        trained = [
            leaf.astype(dtype)
            for leaf, dtype in zip(self._unravel(vector), self._dtypes, strict=True)
        ]
        return self.parts.whole(trained, self.parts.fixed)

    def advance(self, state: State, count: int) -> State:
        """Run some iterations; the state passed in is used up."""
        return self._advance(state, self.parts.fixed, self._problem, jnp.int32(count))

    def validate(self, parameters: Vector) -> float:
        """Loss on the validation trajectories."""
        return float(self._validate(parameters, self.parts.fixed, self._validation))

    def learning_rate(self, iteration: int) -> None:
        """None: the line search finds the step."""

    def _loss_of(
        self, reconstruction: float
    ) -> Callable[[Vector, Leaves, Problem], Float[Array, ""]]:
        def loss(vector: Vector, fixed: Leaves, problem: Problem) -> Float[Array, ""]:
            surrogate = self.parts.whole(self._unravel(vector), fixed)
            return training_loss(surrogate, problem, reconstruction)

        return loss

    def _iterations(self, spec: TrainingSpec) -> Callable[..., State]:
        loss_of = self._loss_of(spec.reconstruction)

        def advance(
            state: State, fixed: Leaves, problem: Problem, count: Int[Array, ""]
        ) -> State:
            guarded = _guarded(lambda vector: loss_of(vector, fixed, problem))
            value_and_gradient = optax.value_and_grad_from_state(guarded)

            def iterate(_: Int[Array, ""], state: State) -> State:
                loss, gradient = value_and_gradient(
                    state.parameters, state=state.optimiser
                )
                updates, optimiser = self._optimiser.update(
                    gradient,
                    state.optimiser,
                    state.parameters,
                    value=loss,
                    grad=gradient,
                    value_fn=guarded,
                )
                is_finite = jnp.less(loss, _NOT_FINITE)
                return State(
                    optax.apply_updates(state.parameters, updates),
                    optimiser,
                    iteration=state.iteration + 1,
                    loss_sum=state.loss_sum + loss,
                    counted=state.counted + 1,
                    skipped=jnp.where(is_finite, 0, state.skipped + 1),
                )

            return jax.lax.fori_loop(0, count, iterate, state)

        return advance


def _guarded(
    loss: Callable[[Vector], Float[Array, ""]],
) -> Callable[[Vector], Float[Array, ""]]:
    """A loss that is large and flat where it or its gradient is not finite."""

    def forward(vector: Vector) -> tuple[Float[Array, ""], Vector]:
        value, gradient = jax.value_and_grad(loss)(vector)
        good = jnp.isfinite(value) & jnp.isfinite(gradient).all()
        return jnp.where(good, value, _NOT_FINITE), jnp.where(good, gradient, 0.0)

    def backward(gradient: Vector, factor: Float[Array, ""]) -> tuple[Vector]:
        return (factor * gradient,)

    guarded = jax.custom_vjp(lambda vector: forward(vector)[0])
    guarded.defvjp(forward, backward)
    return guarded
