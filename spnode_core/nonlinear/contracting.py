"""The network that cannot undo the decay of ``A``: all rollouts come together."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from spnode_core.linear.base import AbstractLinearOperator
from spnode_core.linear.hurwitz import HurwitzOperator
from spnode_core.linear.modal import ModalOperator
from spnode_core.networks import Network
from spnode_core.nonlinear.base import AbstractNonlinearOperator
from spnode_core.nonlinear.gram import gram_norm


class ContractingOperator(AbstractNonlinearOperator):
    r"""``f(z) = T^{-1} N(T z)`` with ``Lip N`` below the decay of ``A`` in that norm.

    .. math:: P = T^T T, \quad c = -\mu_P(A), \quad
       N(y) = \kappa\, \hat W_m \tanh(\dots \tanh(\hat W_1 y)), \quad
       \lVert \hat W_k \rVert_2 \le 1, \quad \kappa = \text{margin} \cdot c .

    Then ``f`` is ``kappa``-Lipschitz in ``|z|_P = |T z|_2`` while ``A`` decays there at
    rate ``c``, so that two rollouts approach each other at rate ``c - kappa`` at least,
    and so does each ETD1 step, of any length. ``T = I`` where the modes are decoupled
    or ``A`` is dissipative. Where ``A`` does not decay, ``f`` is constant.

    Args:
        network: The network from ``[y, u, p]`` to ``T f``, before it is normalised.
        margin: Part of the decay that f may use up, between 0 and 1.
    """

    network: Network
    margin: float = eqx.field(static=True)
    transform: Float[Array, "latent latent"] | None = None
    inverse: Float[Array, "latent latent"] | None = None
    is_prepared: bool = eqx.field(static=True, default=False)

    def prepared(self, linear: AbstractLinearOperator) -> "ContractingOperator":
        """The operator with weights normalised by the decay of ``A``, once a rollout.

        Args:
            linear: The ``A`` beside it.
        """
        if self.is_prepared:
            return self
        transform, decay = decay_of(linear)
        scale = self.margin * jnp.maximum(decay, 0.0)
        first, *middle, last = self.network.weights
        latent = last.shape[0]
        dtype = last.dtype
        # Only what the network sees of z counts, and no layer is enlarged.
        weights = [first / _at_least_1(gram_norm(first[:, :latent]))]
        weights += [weight / _at_least_1(gram_norm(weight)) for weight in middle]
        weights += [scale.astype(dtype) * last / _at_least_1(gram_norm(last))]
        *others, bias = self.network.biases
        network = eqx.tree_at(
            lambda n: (n.weights, n.biases),
            self.network,
            (tuple(weights), (*others, scale.astype(dtype) * bias)),
        )
        inverse = None if transform is None else jnp.linalg.inv(transform)
        return type(self)(network, self.margin, transform, inverse, is_prepared=True)

    def __call__(self, inputs: Float[Array, " input"]) -> Float[Array, " latent"]:
        """``f``, 1/time.

        Raises:
            ValueError: The operator was not prepared beside its linear operator.
        """
        if not self.is_prepared:
            raise ValueError("a contracting operator must be prepared with its A first")
        if self.transform is None or self.inverse is None:
            return self.network(inputs)
        latent = self.transform.shape[0]
        turned = inputs.at[:latent].set(self.transform @ inputs[:latent])
        return self.inverse @ self.network(turned)


def decay_of(
    linear: AbstractLinearOperator,
) -> tuple[Float[Array, "latent latent"] | None, Float[Array, ""]]:
    r"""``T`` with ``P = T^T T``, None for the identity, and ``c = -mu_P(A)``, 1/time.

    Hurwitz: ``P = L_2 L_2^T`` of its own factors and ``c = lmin(L_2^T Q L_2) - alpha``.

    Args:
        linear: The linear operator; rates that depend on parameters are not bounded.
    """
    if isinstance(linear, ModalOperator):
        return None, jnp.exp(jnp.min(linear.log_rates)) - linear.shift
    if isinstance(linear, HurwitzOperator):
        q, _, p = linear.factors()
        transform = jnp.linalg.cholesky(p).T
        return transform, _least_eigenvalue(transform @ q @ transform.T) - linear.shift
    matrix = linear.matrix()
    return None, _least_eigenvalue(-(matrix + matrix.T) / 2)


def _least_eigenvalue(symmetric: Float[Array, "n n"]) -> Float[Array, ""]:
    """``v^T S v`` at the eigenvector v; its gradient is right where others are NaN."""
    _, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(symmetric))
    v = vectors[:, 0]
    return v @ symmetric @ v


def _at_least_1(norm: Float[Array, ""]) -> Float[Array, ""]:
    return jnp.maximum(norm, 1.0)
