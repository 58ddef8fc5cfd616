"""The network whose Lipschitz constant is bounded by construction (paper, 7-8)."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from spnode_core.linear.base import AbstractLinearOperator
from spnode_core.networks import Network
from spnode_core.nonlinear.base import AbstractNonlinearOperator


class LipschitzOperator(AbstractNonlinearOperator):
    r"""A tanh network of ``m`` layers with Lipschitz constant at most ``L``.

    .. math:: \hat W_k = \frac{L^{1/m}\, W_k}
       {\sqrt{\lVert W_k \rVert_1 \lVert W_k \rVert_\infty}}

    (maximal column sum, maximal row sum); ``||W||_2^2 <= ||W||_1 ||W||_inf`` and tanh
    is 1-Lipschitz, so the product of the layers' norms is at most ``L`` in the
    Euclidean norm.

    Args:
        network: The network whose weights are normalised before use.
        constant: The bound L, 1/time.

    Source:
        Paper, Definition 1, Theorem 2, (7)-(8).
    """

    network: Network
    constant: float = eqx.field(static=True)
    is_prepared: bool = eqx.field(static=True, default=False)

    def prepared(self, linear: AbstractLinearOperator) -> "LipschitzOperator":
        """The operator with its weights normalised, once per rollout."""
        return self._normalised()

    def _normalised(self) -> "LipschitzOperator":
        if self.is_prepared:
            return self
        weights = self.network.weights
        factor = self.constant ** (1 / len(weights))
        normalised = tuple(factor * weight / _norm(weight) for weight in weights)
        network = eqx.tree_at(lambda n: n.weights, self.network, normalised)
        return type(self)(network, self.constant, is_prepared=True)

    def __call__(self, inputs: Float[Array, " input"]) -> Float[Array, " latent"]:
        """``f``, 1/time."""
        return self._normalised().network(inputs)


def _norm(weight: Float[Array, "outputs inputs"]) -> Float[Array, ""]:
    modulus = jnp.abs(weight)
    product = modulus.sum(axis=0).max() * modulus.sum(axis=1).max()
    return jnp.sqrt(jnp.maximum(product, jnp.finfo(weight.dtype).tiny))
