"""The tanh network that encoder, decoder and nonlinear operators share.

``y = W_m tanh(... tanh(W_1 x + b_1) ...) + b_m``
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

T = TypeVar("T")
Weights = tuple[Float[Array, "_outputs _inputs"], ...]
Columns = tuple[Float[Array, "_inputs _outputs"], ...]
Biases = tuple[Float[Array, " _outputs"], ...]
# Rows from which on a batch is computed as columns.
_MANY = 64
# Rows of a block, whose activations stay in the cache: columns of other numbers than
# multiples of 64 round otherwise.
_BLOCK = 128


def product(
    left: Float[Array, "..."], right: Float[Array, "..."]
) -> Float[Array, "..."]:
    """``left @ right`` in the precision of its dtype.

    GPUs would else take 10 bits of the mantissa of float32 (TF32): bounds on weights
    would be none, and a trained model would give other states elsewhere.
    """
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)


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


class BatchedNetwork(eqx.Module):
    """The same network as fast as a batch of any size can be, for rollouts.

    On a CPU, few rows read weights that are stored by their columns in 0.6 of the time
    (2 rows) to 0.8 (32). Many, from 64 on, take 0.8 of it as columns themselves, in
    blocks that stay in the cache. A row has the same bits in most of these batches, if
    products are not shared out to threads.

    Args:
        network: Whose weights they are.
    """

    weights: Weights
    columns: Columns
    biases: Biases

    def __init__(self, network: Network) -> None:
        self.weights = network.weights
        self.columns = tuple(weight.T for weight in network.weights)
        self.biases = network.biases

    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        """The network's value at one input, float64; batched by ``vmap``.

        Reverse-mode differentiation is for what is batched already, as rollouts are.
        """
        return _value(self.weights, self.columns, self.biases, x)


@jax.custom_batching.custom_vmap
def _value(
    weights: Weights, columns: Columns, biases: Biases, x: Float[Array, " inputs"]
) -> Float[Array, " outputs"]:
    return _at_one(columns, biases, x)


@_value.def_vmap
def _values(
    size: Any,
    is_batched: Any,
    weights: tuple[Array, ...],
    columns: tuple[Array, ...],
    biases: tuple[Array, ...],
    x: Float[Array, "..."],
) -> tuple[Float[Array, "..."], bool]:
    """At the inputs of a batch, and whether the values differ among it."""
    if not any(jax.tree.leaves(is_batched)):
        return _at_one(columns, biases, x), False
    # An export leaves the number of rows open; accelerators know how to cut products.
    is_plain = not isinstance(size, int) or jax.default_backend() != "cpu"
    if is_plain or size < _MANY or any(jax.tree.leaves(is_batched[:3])):
        axes = jax.tree.map(lambda given: 0 if given else None, tuple(is_batched[1:]))
        return jax.vmap(_at_one, axes)(columns, biases, x), True
    block = _MANY if size <= _MANY else _BLOCK
    blocks = -(-size // block)
    filled = jnp.pad(x, ((0, blocks * block - size), (0, 0)))
    at_columns = functools.partial(_at_columns, weights, biases)
    if blocks == 1:
        return at_columns(filled)[:size], True
    by_block = jax.lax.map(at_columns, filled.reshape(blocks, block, x.shape[1]))
    return by_block.reshape(blocks * block, by_block.shape[-1])[:size], True


def _at_columns(
    weights: Weights, biases: Biases, x: Float[Array, "batch inputs"]
) -> Float[Array, "batch outputs"]:
    hidden = x.T.astype(weights[0].dtype)
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        hidden = jnp.tanh(product(weight, hidden) + bias[:, None])
    last = product(weights[-1], hidden) + biases[-1][:, None]
    return last.T.astype(jnp.float64)


def _at_one(
    columns: Columns, biases: Biases, x: Float[Array, " inputs"]
) -> Float[Array, " outputs"]:
    hidden = x.astype(columns[0].dtype)
    for weight, bias in zip(columns[:-1], biases[:-1], strict=True):
        hidden = jnp.tanh(product(hidden, weight) + bias)
    return (product(hidden, columns[-1]) + biases[-1]).astype(jnp.float64)


def batched(tree: T) -> T:
    """A tree whose networks are made for batches."""
    return _changed(tree, BatchedNetwork)


def transposed(tree: T) -> T:
    """A tree whose networks' weights are transposed; twice it is itself.

    What is handed to compiled code that transposes it back is never moved: by columns
    it is there already.
    """

    def turned(network: Network) -> Network:
        weights = tuple(jnp.swapaxes(weight, -1, -2) for weight in network.weights)
        return eqx.tree_at(lambda network: network.weights, network, weights)

    return _changed(tree, turned)


def _changed(tree: T, change: Callable[[Network], Any]) -> T:
    return jax.tree.map(
        lambda node: change(node) if isinstance(node, Network) else node,
        tree,
        is_leaf=lambda node: isinstance(node, Network),
    )
