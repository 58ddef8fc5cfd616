"""A tanh network that sees its inputs and their logarithms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from numpy.typing import NDArray

# Below this part of its floor an input's logarithm stays where it is.
_LOWEST = -0.9


class LogNetwork(eqx.Module):
    r"""``N(w) = W_2 tanh(W_1 [w, l(w)] + b)``: roots and quotients of inputs are easy.

    .. math:: l_i = \frac{\ln(1 + w_i / f_i)}{\ln(1 + 1 / f_i)}

    from the floor ``f_i`` on: small positive values count by their ratio. An input that
    has both signs has the floor 1, and nothing is gained or lost. All float64.

    Args:
        inputs: Number of inputs w.
        outputs: Number of outputs.
        width: Units of the one hidden layer.
        key: Source of the initial weights.
    """

    floors: Float[Array, " input"]
    weights: Float[Array, "width feature"]
    bias: Float[Array, " width"]
    last: Float[Array, "output width"]

    def __init__(
        self, inputs: int, outputs: int, *, width: int, key: PRNGKeyArray
    ) -> None:
        self.floors = jnp.ones(inputs, jnp.float64)
        draw = jax.random.normal(key, (width, 2 * inputs), jnp.float64)
        self.weights = draw / (2 * inputs) ** 0.5
        self.bias = jnp.zeros(width, jnp.float64)
        self.last = jnp.zeros((outputs, width), jnp.float64)

    def __call__(self, inputs: Float[Array, " input"]) -> Float[Array, " output"]:
        """The network's value at one input."""
        return self.last @ jnp.tanh(self.weights @ self.features(inputs) + self.bias)

    def features(self, inputs: Float[Array, " input"]) -> Float[Array, " feature"]:
        """The inputs, then their logarithms."""
        floors = jax.lax.stop_gradient(self.floors)
        above = jnp.maximum(inputs / floors, _LOWEST)
        logs = jnp.log1p(above) / jnp.log1p(1 / floors)
        return jnp.concatenate([inputs, logs])

    def slopes(self) -> NDArray[np.float64]:
        """Bounds on the moduli of all derivatives, ``(output, input)``."""
        first, last = (np.abs(np.asarray(w)) for w in (self.weights, self.last))
        floors = np.asarray(self.floors)
        steepest = 1 / ((1 + _LOWEST) * floors * np.log1p(1 / floors))
        plain, logs = np.split(first, 2, axis=1)
        return last @ (plain + logs * steepest)
