"""The low-rank bilinear operator (paper, 6)."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from spnode_core.networks import WithMatrices, product
from spnode_core.nonlinear.base import AbstractNonlinearOperator


class BilinearOperator(AbstractNonlinearOperator, WithMatrices):
    """``f(v) = W3 [(W1 v) o (W2 v)]``, ``v = z`` or, with inputs, ``v = [z, u, p, 1]``.

    The 1 lets controls and parameters act linearly; without them ``f`` is exactly the
    paper's (6), so it is quadratic and separates cleanly from ``A``.

    Args:
        latent: Number of latent variables.
        others: Number of controls and parameters.
        rank: Number of products r.
        initial_scale: Factor on the initial weights.
        dtype: Dtype of the weights.
        key: Source of the initial weights.
    """

    matrices: ClassVar = ("first", "second", "last")
    first: Float[Array, "rank input"]
    second: Float[Array, "rank input"]
    last: Float[Array, "latent rank"]

    def __init__(
        self,
        latent: int,
        *,
        others: int,
        rank: int,
        initial_scale: float,
        dtype: jnp.dtype,
        key: PRNGKeyArray,
    ) -> None:
        inputs = latent + others + (1 if others else 0)
        keys = jax.random.split(key, 3)
        scale = initial_scale / inputs**0.5
        self.first = scale * jax.random.normal(keys[0], (rank, inputs), dtype)
        self.second = scale * jax.random.normal(keys[1], (rank, inputs), dtype)
        last_scale = initial_scale / rank**0.5
        self.last = last_scale * jax.random.normal(keys[2], (latent, rank), dtype)

    def __call__(self, inputs: Float[Array, " input"]) -> Float[Array, " latent"]:
        """``f``, 1/time."""
        v = inputs.astype(self.first.dtype)
        if self.first.shape[1] > v.shape[0]:
            v = jnp.append(v, jnp.ones((), v.dtype))
        factors = product(self.first, v) * product(self.second, v)
        return product(self.last, factors).astype(jnp.float64)
