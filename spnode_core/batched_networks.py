"""Networks of whole batches: each product in the layout that suits the number of rows.

::

    few rows     h[row, in] times weights stored by columns: steps of small tiles
    many rows    weights times h[in, row], in blocks of 128 columns
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from spnode_core.networks import (
    ByColumns,
    Network,
    changed,
    matrices_changed,
    product,
    times_row,
)

T = TypeVar("T")
Weights = tuple[Float[Array, "_outputs _inputs"], ...]
Columns = tuple[Float[Array, "_inputs _outputs"], ...]
Biases = tuple[Float[Array, " _outputs"], ...]
# Rows from which on a batch is computed as columns.
_MANY = 64
# Columns of a block, whose activations stay in the cache: other numbers than multiples
# of 64 round otherwise.
_BLOCK = 128


class BatchedNetwork(eqx.Module):
    """The same network as fast as a batch of any size can be, for rollouts.

    On a CPU, few rows read weights that are stored by their columns in 0.6 of the time
    (2 rows) to 0.8 (32). Many, from 64 on, take 0.8 of it as columns themselves, in
    blocks that stay in the cache. Derivatives backwards read the weights the other way.
    A row has the same bits in most of these batches, if products are not shared out to
    threads.

    Args:
        weights: Those of a network.
        biases: Likewise.
        is_filled: Whether few rows are filled up to a block, so that all numbers of
            rows round alike.
    """

    weights: Weights
    columns: Columns
    biases: Biases
    is_filled: bool = eqx.field(static=True)

    def __init__(
        self, weights: Weights, biases: Biases, *, is_filled: bool = False
    ) -> None:
        self.weights, self.biases = weights, biases
        self.columns = tuple(jnp.swapaxes(weight, -1, -2) for weight in weights)
        self.is_filled = is_filled

    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        """The network's value at one input, float64; batched by ``vmap``.

        Reverse-mode differentiation is for what is batched already, as rollouts are.
        """
        value = _FILLED_VALUE if self.is_filled else _VALUE
        return value(self.weights, self.columns, self.biases, x)


def _values(
    is_filled: bool,
    size: Any,
    is_batched: Any,
    weights: tuple[Array, ...],
    columns: tuple[Array, ...],
    biases: tuple[Array, ...],
    x: Float[Array, "..."],
) -> tuple[Float[Array, "..."], bool]:
    """At the inputs of a batch, and whether the values differ among it."""
    if not any(jax.tree.leaves(is_batched)):
        return _at_one(weights, columns, biases, x), False
    # An export leaves the number of rows open; accelerators know how to cut products.
    is_plain = not isinstance(size, int) or jax.default_backend() != "cpu"
    is_plain = is_plain or any(jax.tree.leaves(is_batched[:3]))
    if is_plain or (size < _MANY and not is_filled):
        axes = jax.tree.map(lambda given: 0 if given else None, tuple(is_batched))
        return jax.vmap(_at_one, axes)(weights, columns, biases, x), True
    block = _MANY if size <= _MANY else _BLOCK
    blocks = -(-size // block)
    whole = jnp.pad(x, ((0, blocks * block - size), (0, 0)))
    at_columns = functools.partial(_at_columns, weights, columns, biases)
    if blocks == 1:
        return at_columns(whole)[:size], True
    by_block = jax.lax.map(at_columns, whole.reshape(blocks, block, x.shape[1]))
    return by_block.reshape(blocks * block, by_block.shape[-1])[:size], True


def _at_columns(
    weights: Weights,
    columns: Columns,
    biases: Biases,
    x: Float[Array, "batch inputs"],
) -> Float[Array, "batch outputs"]:
    hidden = x.T.astype(weights[0].dtype)
    layers = zip(weights[:-1], columns[:-1], biases[:-1], strict=True)
    for weight, column, bias in layers:
        hidden = jnp.tanh(_times_columns(weight, column, hidden) + bias[:, None])
    last = _times_columns(weights[-1], columns[-1], hidden) + biases[-1][:, None]
    return last.T.astype(jnp.float64)


def _at_one(
    weights: Weights, columns: Columns, biases: Biases, x: Float[Array, " inputs"]
) -> Float[Array, " outputs"]:
    hidden = x.astype(columns[0].dtype)
    layers = zip(weights[:-1], columns[:-1], biases[:-1], strict=True)
    for weight, column, bias in layers:
        hidden = jnp.tanh(times_row(weight, column, hidden) + bias)
    last = times_row(weights[-1], columns[-1], hidden) + biases[-1]
    return last.astype(jnp.float64)


@jax.custom_jvp
def _times_columns(weight: Array, columns: Array, hidden: Array) -> Array:
    """``W H`` by the rows of W; a way back reads its columns."""
    return product(weight, hidden)


@_times_columns.defjvp
def _times_columns_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    weight, columns, hidden = primals
    change = product(tangents[0], hidden) + product(columns.T, tangents[2])
    return _times_columns(weight, columns, hidden), change


def _batched_value(*, is_filled: bool) -> Callable[..., Array]:
    value = jax.custom_batching.custom_vmap(_at_one)
    value.def_vmap(functools.partial(_values, is_filled))
    return value


_VALUE = _batched_value(is_filled=False)
_FILLED_VALUE = _batched_value(is_filled=True)


def batched(tree: T) -> T:
    """A tree whose networks, and matrices beside them, are made for batches."""
    tree = changed(tree, Network, lambda n: BatchedNetwork(n.weights, n.biases))
    return matrices_changed(tree, ByColumns)


def filled(tree: T) -> T:
    """A tree whose batched networks, if it has any, fill few rows up to many."""

    def fill(network: BatchedNetwork) -> BatchedNetwork:
        return BatchedNetwork(network.weights, network.biases, is_filled=True)

    return changed(tree, BatchedNetwork, fill)
