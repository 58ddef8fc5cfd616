"""The gradient step that is measured, by whatever rolls out; peers import it too."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from spnode_core import Surrogate


def mean_squared_error(surrogate: Surrogate, states: Any, target: Any) -> Any:
    """Of normalised states."""
    normalise = jax.vmap(jax.vmap(surrogate.normaliser.states.normalise))
    return jnp.mean((normalise(states) - normalise(target)) ** 2)


def step_of(
    roll: Callable[[Surrogate, Any], Any], surrogate: Surrogate, x0: Any, true: Any
) -> Callable[[], float]:
    """A call that gives the loss and computes its gradient.

    Args:
        roll: States from the model and initial states.
        surrogate: The model.
        x0: Initial states.
        true: States to be near to.
    """
    loss, x0, true = _loss(roll), jnp.asarray(x0), jnp.asarray(true)

    def call() -> float:
        value, gradient = loss(surrogate, x0, true)
        jax.block_until_ready(gradient)
        return float(value)

    return call


def gradient_of(
    roll: Callable[[Surrogate, Any], Any], surrogate: Surrogate, x0: Any, true: Any
) -> np.ndarray:
    """The gradient itself, as one vector in float64."""
    _, gradient = _loss(roll)(surrogate, jnp.asarray(x0), jnp.asarray(true))
    leaves = jax.tree.leaves(gradient)
    return np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in leaves])


def _loss(roll: Callable[[Surrogate, Any], Any]) -> Callable[..., Any]:
    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def loss(surrogate: Surrogate, x0: Any, true: Any) -> Any:
        return mean_squared_error(surrogate, roll(surrogate.prepared(), x0), true)

    return loss
