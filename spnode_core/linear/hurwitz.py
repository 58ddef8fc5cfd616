"""The dense linear operator that is Hurwitz by construction (paper, 3-5)."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from spnode_core.linear.base import AbstractLinearOperator
from spnode_core.linear.lyapunov import factors_of
from spnode_core.linear.triangular import lower, strictly_lower


class HurwitzOperator(AbstractLinearOperator):
    r"""A dense ``A`` whose eigenvalues all have real part below ``shift``.

    .. math:: A = (-Q + K) P + \alpha I, \quad
       Q = L_1 L_1^T, \quad P = L_2 L_2^T, \quad K = L_3 - L_3^T

    with lower triangular ``L_1``, ``L_2`` whose diagonals are exponentials, and
    strictly lower ``L_3``: ``n (3 n + 1) / 2`` numbers. ``P`` is scaled to trace ``n``
    (only the product with ``Q`` and ``K`` matters). ``z^T P z`` falls along every
    unforced linear trajectory when ``shift`` is 0.

    Args:
        rates: Initial decay rates, ``(latent,)``, 1/time, positive: the initial ``A``
            is diagonal with these.
        shift: Bound ``alpha`` on the real parts, 1/time, ``shift >= 0``.

    Raises:
        ValueError: A rate is not positive or ``shift`` is negative.

    Source:
        Duan & Patton (1998), Automatica 34(4), 509-511, Theorem 1; paper, (3)-(5).
    """

    log_diagonal_q: Float[Array, " latent"]
    log_diagonal_p: Float[Array, " latent"]
    lower_q: Float[Array, " strict"]
    lower_p: Float[Array, " strict"]
    lower_k: Float[Array, " strict"]
    shift: float = eqx.field(static=True)

    def __init__(self, rates: NDArray[np.float64], *, shift: float = 0.0) -> None:
        if shift < 0 or np.any(np.asarray(rates) <= 0):
            raise ValueError(
                f"rates must be positive and shift at least 0, not {rates!r}, {shift!r}"
            )
        latent = len(rates)
        strict = latent * (latent - 1) // 2
        self.log_diagonal_q = jnp.asarray(0.5 * np.log(rates), jnp.float64)
        self.log_diagonal_p = jnp.zeros(latent, jnp.float64)
        self.lower_q = jnp.zeros(strict, jnp.float64)
        self.lower_p = jnp.zeros(strict, jnp.float64)
        self.lower_k = jnp.zeros(strict, jnp.float64)
        self.shift = float(shift)

    @classmethod
    def from_matrix(
        cls, matrix: NDArray[np.float64], *, shift: float = 0.0
    ) -> "HurwitzOperator":
        """The operator that starts as a given stable matrix, defective or not.

        Args:
            matrix: ``A``, 1/time, ``(latent, latent)``.
            shift: What the real parts of its eigenvalues are below, 1/time.

        Raises:
            InvalidInput: An eigenvalue is not below ``shift``, or hardly so.
        """
        q, k, p = factors_of(np.asarray(matrix, np.float64), shift=shift)
        l1, l2 = np.linalg.cholesky(q), np.linalg.cholesky(p)
        below = np.tril_indices(len(q), -1)
        return eqx.tree_at(
            lambda a: (
                a.log_diagonal_q,
                a.log_diagonal_p,
                a.lower_q,
                a.lower_p,
                a.lower_k,
            ),
            cls(np.ones(len(q)), shift=shift),
            tuple(
                map(
                    jnp.asarray,
                    (
                        np.log(np.diag(l1)),
                        np.log(np.diag(l2)),
                        l1[below],
                        l2[below],
                        k[below],
                    ),
                )
            ),
        )

    def factors(
        self,
    ) -> tuple[
        Float[Array, "latent latent"],
        Float[Array, "latent latent"],
        Float[Array, "latent latent"],
    ]:
        """``Q``, ``K`` and ``P`` of ``A = (-Q + K) P + shift I``, ``trace(P) = n``."""
        latent = self.log_diagonal_q.shape[0]
        l1 = lower(self.log_diagonal_q, self.lower_q)
        l2 = lower(self.log_diagonal_p, self.lower_p)
        l3 = strictly_lower(self.lower_k, latent)
        p = l2 @ l2.T
        return l1 @ l1.T, l3 - l3.T, p * (latent / jnp.trace(p))

    def matrix(
        self, parameters: Float[Array, " parameter"] | None = None
    ) -> Float[Array, "latent latent"]:
        """``A = (-Q + K) P + shift I``, 1/time."""
        q, k, p = self.factors()
        return (k - q) @ p + self.shift * jnp.eye(p.shape[0], dtype=p.dtype)
