"""The plain network, and the relaxation form that wraps one."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from spnode_core.networks import Network
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

    Args:
        network: The network from ``[z, u, p]`` to ``g``.
    """

    network: Network

    def __call__(self, inputs: Float[Array, " input"]) -> Float[Array, " latent"]:
        """The target ``g``, dimensionless."""
        return self.network(inputs)

    def bound(self) -> Float[Array, " latent"]:
        """``G``, which ``|g|`` never exceeds, whatever the inputs."""
        return self.network.bound().astype(jnp.float64)

    @property
    def is_relaxation(self) -> bool:
        """True: the value is ``g`` of ``f = -A g``."""
        return True
