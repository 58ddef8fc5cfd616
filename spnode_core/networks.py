"""The tanh network that encoder, decoder and nonlinear operators share.

``y = W_m tanh(... tanh(W_1 x + b_1) ...) + b_m``
"""

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

T = TypeVar("T")
HIGHEST = jax.lax.Precision.HIGHEST
"""What products of networks have, on every device."""


def product(
    left: Float[Array, "..."], right: Float[Array, "..."]
) -> Float[Array, "..."]:
    """``left @ right`` in the precision of its dtype.

    GPUs would else take 10 bits of the mantissa of float32 (TF32): bounds on weights
    would be none, and a trained model would give other states elsewhere.
    """
    return jnp.matmul(left, right, precision=HIGHEST)


class Network(eqx.Module):
    """A tanh network that computes in the dtype of its weights, float64 outside.

    Args:
        inputs: Number of inputs.
        outputs: Number of outputs.
        width: Units in each hidden layer.
        depth: Number of hidden layers.
        dtype: Dtype of the weights, float32 or float64.
        last_scale: Factor on the initial weights of the last layer.
        key: Source of the initial weights.
    """

    weights: tuple[Float[Array, "outputs inputs"], ...]
    biases: tuple[Float[Array, " outputs"], ...]

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        width: int,
        depth: int,
        dtype: jnp.dtype,
        key: PRNGKeyArray,
        last_scale: float = 1.0,
    ) -> None:
        sizes = [inputs, *[width] * depth, outputs]
        scales = [1.0] * depth + [last_scale]
        weights, biases = [], []
        for layer, scale in enumerate(scales):
            weight_key, bias_key = jax.random.split(jax.random.fold_in(key, layer))
            bound = scale / max(sizes[layer], 1) ** 0.5
            shape = (sizes[layer + 1], sizes[layer])
            weights.append(jax.random.uniform(weight_key, shape, dtype, -bound, bound))
            biases.append(jax.random.uniform(bias_key, shape[:1], dtype, -bound, bound))
        self.weights, self.biases = tuple(weights), tuple(biases)

    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        """The network's value at one input, float64."""
        hidden = x.astype(self.weights[0].dtype)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = jnp.tanh(product(weight, hidden) + bias)
        last = product(self.weights[-1], hidden) + self.biases[-1]
        return last.astype(jnp.float64)

    def bound(self) -> Float[Array, " outputs"]:
        """``G_i = |b_i| + sum_j |W_ij|``, no output's modulus ever exceeds it."""
        weight = self.weights[-1].astype(jnp.float64)
        bias = self.biases[-1].astype(jnp.float64)
        return jnp.abs(bias) + jnp.abs(weight).sum(axis=1)


def transposed(tree: T) -> T:
    """A tree whose networks' weights are transposed; twice it is itself.

    What is handed to compiled code that transposes it back is never moved: by columns
    it is there already.
    """

    def turned(network: Network) -> Network:
        weights = tuple(jnp.swapaxes(weight, -1, -2) for weight in network.weights)
        return eqx.tree_at(lambda network: network.weights, network, weights)

    return changed(tree, Network, turned)


def changed(
    tree: T, kind: type[Any] | tuple[type[Any], ...], change: Callable[[Any], Any]
) -> T:
    """A tree with something else in place of each node of a kind, or of some."""
    return jax.tree.map(
        lambda node: change(node) if isinstance(node, kind) else node,
        tree,
        is_leaf=lambda node: isinstance(node, kind),
    )
