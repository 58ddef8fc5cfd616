"""The network whose Lipschitz constant is bounded by construction (paper, 7-8)."""

from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from spnode_core.linear.base import AbstractLinearOperator
from spnode_core.networks import Network
from spnode_core.nonlinear.base import AbstractNonlinearOperator
from spnode_core.nonlinear.gram import gram_norm

LayerNorm = Literal["row_column", "gram"]


class LipschitzOperator(AbstractNonlinearOperator):
    r"""A tanh network of ``m`` layers with Lipschitz constant at most ``L``.

    .. math:: \hat W_k = L^{1/m}\, W_k / N(W_k), \quad
       N(W) = \sqrt{\lVert W \rVert_1 \lVert W \rVert_\infty}

    (maximal column sum, maximal row sum) or, with ``layer_norm = "gram"``, the bound by
    Gram iteration, which is within a few per cent of the spectral norm. Both are at
    least :math:`\lVert W \rVert_2`, and tanh is 1-Lipschitz, so the product of the
    layers' norms is at most ``L`` in the Euclidean norm.

    Args:
        network: The network whose weights are normalised before use.
        constant: The bound L, 1/time.
        layer_norm: Which bound N on the norm of a layer.

    Source:
        Paper, Definition 1, Theorem 2, (7)-(8).
    """

    network: Network
    constant: float = eqx.field(static=True)
    layer_norm: LayerNorm = eqx.field(static=True, default="row_column")
    is_prepared: bool = eqx.field(static=True, default=False)

    def prepared(self, linear: AbstractLinearOperator) -> "LipschitzOperator":
        """The operator with its weights normalised, once per rollout."""
        return self._normalised()

    def __call__(self, inputs: Float[Array, " input"]) -> Float[Array, " latent"]:
        """``f``, 1/time."""
        return self._normalised().network(inputs)

    def _normalised(self) -> "LipschitzOperator":
        if self.is_prepared:
            return self
        weights = self.network.weights
        factor = self.constant ** (1 / len(weights))
        bound = gram_norm if self.layer_norm == "gram" else row_column_norm
        normalised = tuple(
            factor * weight / jnp.maximum(bound(weight), _least(weight))
            for weight in weights
        )
        network = eqx.tree_at(lambda n: n.weights, self.network, normalised)
        return type(self)(network, self.constant, self.layer_norm, is_prepared=True)


def row_column_norm(weight: Float[Array, "outputs inputs"]) -> Float[Array, ""]:
    """``sqrt(||W||_1 ||W||_inf)``, at least the spectral norm."""
    modulus = jnp.abs(weight)
    product = modulus.sum(axis=0).max() * modulus.sum(axis=1).max()
    return jnp.sqrt(jnp.maximum(product, float(jnp.finfo(weight.dtype).tiny)))


def _least(weight: Float[Array, "outputs inputs"]) -> float:
    """A number whose square is still one: a layer of zeros has a finite gradient."""
    return float(jnp.finfo(weight.dtype).tiny) ** 0.5
