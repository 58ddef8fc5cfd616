"""The dense linear operator under which every norm of the flow falls (P = I)."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from spnode_core.linear.base import AbstractLinearOperator
from spnode_core.linear.triangular import lower, strictly_lower


class DissipativeOperator(AbstractLinearOperator):
    r"""A dense ``A`` whose logarithmic norm is below ``shift``.

    .. math:: A = -Q + K + \alpha I, \quad Q = L_1 L_1^T \succ 0, \quad
       K = L_3 - L_3^T

    so :math:`|z|_2` itself falls along every unforced linear trajectory when ``shift``
    is 0: no transient growth. It is the Hurwitz form with ``P = I``, in ``n^2``
    numbers.

    Args:
        rates: Initial decay rates, ``(latent,)``, 1/time, positive: the initial ``A``
            is diagonal with these.
        shift: Bound ``alpha`` on the logarithmic norm, 1/time, ``shift >= 0``.

    Raises:
        ValueError: A rate is not positive or ``shift`` is negative.

    Source:
        Duan & Patton (1998), Automatica 34(4), 509-511, Theorem 1, with P = I.
    """

    log_diagonal_q: Float[Array, " latent"]
    lower_q: Float[Array, " strict"]
    lower_k: Float[Array, " strict"]
    shift: float = eqx.field(static=True)

    def __init__(self, rates: NDArray[np.float64], *, shift: float = 0.0) -> None:
        if shift < 0 or np.any(np.asarray(rates) <= 0):
            raise ValueError(
                f"rates must be positive and shift at least 0, not {rates!r}, {shift!r}"
            )
        strict = len(rates) * (len(rates) - 1) // 2
        self.log_diagonal_q = jnp.asarray(0.5 * np.log(rates), jnp.float64)
        self.lower_q = jnp.zeros(strict, jnp.float64)
        self.lower_k = jnp.zeros(strict, jnp.float64)
        self.shift = float(shift)

    def factors(
        self,
    ) -> tuple[Float[Array, "latent latent"], Float[Array, "latent latent"]]:
        """``Q`` and ``K`` of ``A = -Q + K + shift I``."""
        l1 = lower(self.log_diagonal_q, self.lower_q)
        l3 = strictly_lower(self.lower_k, self.log_diagonal_q.shape[0])
        return l1 @ l1.T, l3 - l3.T

    def matrix(
        self, parameters: Float[Array, " parameter"] | None = None
    ) -> Float[Array, "latent latent"]:
        """``A = -Q + K + shift I``, 1/time."""
        q, k = self.factors()
        return k - q + self.shift * jnp.eye(q.shape[0], dtype=q.dtype)
