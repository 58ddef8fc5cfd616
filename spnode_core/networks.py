"""The tanh network that encoder, decoder and nonlinear operators share.

``y = W_m tanh(... tanh(W_1 x + b_1) ...) + b_m``
"""

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

T = TypeVar("T")
HIGHEST = jax.lax.Precision.HIGHEST
"""What products of networks have, on every device."""


def product(
    left: "Float[Array, '...'] | ByColumns", right: Float[Array, "..."]
) -> Float[Array, "..."]:
    """``left @ right`` in the precision of its dtype.

    GPUs would else take 10 bits of the mantissa of float32 (TF32): bounds on weights
    would be none, and a trained model would give other states elsewhere.
    """
    if isinstance(left, ByColumns):
        return left @ right
    return jnp.matmul(left, right, precision=HIGHEST)


class ByColumns(eqx.Module):
    """A matrix by its rows and by its columns: each way reads what suits it.

    Products with few rows of vectors then round alike whatever their number, and so do
    their derivatives.

    Args:
        weight: The matrix.
    """

    weight: Float[Array, "*member outputs inputs"]
    columns: Float[Array, "*member inputs outputs"]

    def __init__(self, weight: Float[Array, "*member outputs inputs"]) -> None:
        self.weight, self.columns = weight, jnp.swapaxes(weight, -1, -2)

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the matrix."""
        return self.weight.shape

    @property
    def dtype(self) -> jnp.dtype:
        """That of the matrix."""
        return self.weight.dtype

    def __matmul__(self, vector: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        return times_row(self.weight, self.columns, vector)


class WithMatrices(eqx.Module):
    """What multiplies vectors by matrices beside networks; ``matrices`` names them."""

    matrices: ClassVar[tuple[str, ...]]


@jax.custom_jvp
def times_row(weight: Array, columns: Array, vector: Array) -> Array:
    """``W v`` by the columns of W; a way back reads its rows."""
    return product(vector, columns)


@times_row.defjvp
def _times_row_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    weight, columns, vector = primals
    # In the other order it rounds otherwise in small tiles.
    by_vector = jax.lax.dot_general(
        tangents[2], weight, (((0,), (1,)), ((), ())), precision=HIGHEST
    )
    change = product(tangents[0], vector) + by_vector
    return times_row(weight, columns, vector), change


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
    """A tree whose networks and matrices are transposed; twice it is itself.

    What is handed to compiled code that transposes it back is never moved: by columns
    it is there already.
    """

    def turned(network: Network) -> Network:
        weights = tuple(jnp.swapaxes(weight, -1, -2) for weight in network.weights)
        return eqx.tree_at(lambda network: network.weights, network, weights)

    tree = changed(tree, Network, turned)
    return matrices_changed(tree, lambda matrix: jnp.swapaxes(matrix, -1, -2))


def matrices_changed(tree: T, change: Callable[[Any], Any]) -> T:
    """A tree with something else in place of each matrix beside its networks."""

    def in_node(node: WithMatrices) -> WithMatrices:
        names = node.matrices
        return eqx.tree_at(
            lambda node: [getattr(node, name) for name in names],
            node,
            [change(getattr(node, name)) for name in names],
        )

    return changed(tree, WithMatrices, in_node)


def changed(
    tree: T, kind: type[Any] | tuple[type[Any], ...], change: Callable[[Any], Any]
) -> T:
    """A tree with something else in place of each node of a kind, or of some."""
    return jax.tree.map(
        lambda node: change(node) if isinstance(node, kind) else node,
        tree,
        is_leaf=lambda node: isinstance(node, kind),
    )
