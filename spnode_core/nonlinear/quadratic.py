"""The full quadratic operator: every product of two latent variables."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from numpy.typing import NDArray

from spnode_core.networks import Network
from spnode_core.nonlinear.base import AbstractNonlinearOperator


class QuadraticOperator(AbstractNonlinearOperator):
    r"""``f(z, u, p) = H (z \otimes z) + B [z, u, p] + c + N(z, u, p)``.

    .. math:: H(z \otimes z)_i = \sum_{j \le k} H_{i,jk} z_j z_k, \qquad
       \text{or} \quad H(z \otimes z) = \sum_k z_k S_k z, \quad S_k = -S_k^T

    where the energy is to be preserved: then :math:`z \cdot H(z \otimes z) = 0`, so
    that products turn the latent state and never stretch it, and every such quadratic
    form can be written so. All of it is float64, but for the network.

    Args:
        latent: Number of latent variables.
        others: Number of controls and parameters.
        energy_preserving: Whether ``z . H (z x z) = 0`` by construction.
        affine: Whether ``B`` and ``c`` are there.
        network: The network N, or None.
        initial_scale: Standard deviation of the initial coefficients.
        key: Source of the initial coefficients.

    Source:
        Peherstorfer & Willcox (2016), CMAME 306, 196-215 (operator inference);
        Schlegel & Noack (2015), J. Fluid Mech. 765, 325-352 (energy preservation).
    """

    products: Float[Array, "latent product"] | None
    turning: Float[Array, "latent strict"] | None
    affine: Float[Array, "latent term"] | None
    network: Network | None

    def __init__(
        self,
        latent: int,
        *,
        others: int,
        energy_preserving: bool,
        affine: bool,
        network: Network | None,
        initial_scale: float,
        key: PRNGKeyArray,
    ) -> None:
        columns = latent * (latent - 1) // 2 if energy_preserving else pairs(latent)
        draw = initial_scale * jax.random.normal(key, (latent, columns), jnp.float64)
        self.turning = draw if energy_preserving else None
        self.products = None if energy_preserving else draw
        self.affine = jnp.zeros((latent, latent + others + 1)) if affine else None
        self.network = network

    def __call__(self, inputs: Float[Array, " input"]) -> Float[Array, " latent"]:
        """``f``, 1/time."""
        if self.products is not None:
            z = inputs[: self.products.shape[0]]
            value = self.products @ monomials(z)
        else:
            assert self.turning is not None
            value = _turned(self.turning, inputs[: self.turning.shape[0]])
        if self.affine is not None:
            value = value + self.affine[:, :-1] @ inputs + self.affine[:, -1]
        if self.network is not None:
            value = value + self.network(inputs)
        return value

    def with_coefficients(
        self, products: NDArray[np.float64], affine: NDArray[np.float64]
    ) -> "QuadraticOperator":
        """The operator with the coefficients of a regression.

        Args:
            products: ``H``, ``(latent, product)``, in the order of ``monomials``.
            affine: ``[B, c]``, ``(latent, latent + others + 1)``.
        """
        assert self.products is not None
        assert self.affine is not None
        return eqx.tree_at(
            lambda f: (f.products, f.affine),
            self,
            (jnp.asarray(products), jnp.asarray(affine)),
        )


def pairs(latent: int) -> int:
    """Number of products ``z_j z_k`` with ``j <= k``."""
    return latent * (latent + 1) // 2


def monomials(z: Any) -> Any:
    """``z_j z_k`` for ``j <= k`` along the last axis, of a JAX or a NumPy array.

    In the order of the upper triangle, row after row: ``(..., product)``.
    """
    first, second = np.triu_indices(z.shape[-1])
    return z[..., first] * z[..., second]


def _turned(
    turning: Float[Array, "latent strict"], z: Float[Array, " latent"]
) -> Float[Array, " latent"]:
    """``sum_k z_k S_k z`` with skew ``S_k`` from their strictly lower entries."""
    rows, columns = np.tril_indices(z.shape[0], -1)
    entries = z @ turning
    empty = jnp.zeros_like(z)
    lower = empty.at[rows].add(entries * z[columns])
    return lower.at[columns].add(-entries * z[rows])
