"""The plain network, and the relaxation form that wraps one."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from spnode_core.linear.base import AbstractLinearOperator
from spnode_core.networks import Network, product
from spnode_core.nonlinear.base import AbstractNonlinearOperator


class MLPOperator(AbstractNonlinearOperator):
    """``f(v) = N(v)``, a tanh network without any bound on its slope.

    Args:
        network: The network from ``[z, u, p]`` to ``f``.
    """

    network: Network

    def __call__(self, inputs: Float[Array, " input"]) -> Float[Array, " latent"]:
        """``f``, 1/time."""
        return self.network(inputs)


class RelaxationOperator(AbstractNonlinearOperator):
    r"""``f(z) = -A g(z)``: the latent variables relax towards a bounded target ``g``.

    .. math:: z_+ = e^{hA} z + (I - e^{hA})\, g(z)

    is ETD1 without any phi function. With real rates every component is a convex
    combination of itself and ``g_i``, so with ``|g_i| <= G_i`` the box
    ``|z_i| <= max(|z_i(0)|, G_i)`` is invariant for every sequence of steps.

    With a ``contraction`` the rows of the last layer are scaled down so far that

    .. math:: \sum_j \big(|W_m| \cdots |W_1|\big)_{ij} \le c,

    the sum being over the latent inputs. As :math:`0 < \tanh' \le 1` it bounds row i of
    the Jacobian, so ``g`` is c-Lipschitz in the largest-component norm; never more
    than the product of the layers' row sums, and far less where signs are mixed.

    Args:
        network: The network from ``[z, u, p]`` to ``g``.
        contraction: Bound c below 1 on the Lipschitz constant of ``g`` in the
            largest-component norm, or None.
    """

    network: Network
    contraction: float | None = eqx.field(static=True, default=None)
    is_prepared: bool = eqx.field(static=True, default=False)

    def prepared(self, linear: AbstractLinearOperator) -> "RelaxationOperator":
        """The operator with its last layer scaled, once per rollout."""
        return self._scaled()

    def _scaled(self) -> "RelaxationOperator":
        if self.contraction is None or self.is_prepared:
            return self
        *others, last = self.network.weights
        sums = row_sums(self.network, last.shape[0])
        # Where the sum is 0 so is the row, and any factor will do.
        least = jnp.maximum(sums, self.contraction)
        scaled = (self.contraction / least)[:, None] * last
        network = eqx.tree_at(lambda n: n.weights, self.network, (*others, scaled))
        return type(self)(network, self.contraction, is_prepared=True)

    def __call__(self, inputs: Float[Array, " input"]) -> Float[Array, " latent"]:
        """The target ``g``, dimensionless."""
        return self._scaled().network(inputs)

    def bound(self) -> Float[Array, " latent"]:
        """``G``, which ``|g|`` never exceeds, whatever the inputs."""
        return self._scaled().network.bound().astype(jnp.float64)

    @property
    def is_relaxation(self) -> bool:
        """True: the value is ``g`` of ``f = -A g``."""
        return True


def row_sums(network: Network, latent: int) -> Float[Array, " outputs"]:
    r"""Row sums of ``|W_m| .. |W_1|`` over the latent inputs.

    Each bounds how fast an output changes with the largest component of ``z``.

    Args:
        network: A network from ``[z, u, p]``.
        latent: Number of latent variables, the first inputs.
    """
    sums = jnp.abs(network.weights[0][:, :latent]).sum(axis=1)
    for weight in network.weights[1:]:
        sums = product(jnp.abs(weight), sums)
    return sums
