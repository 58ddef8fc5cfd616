"""A tight, differentiable bound on the spectral norm of a matrix."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from spnode_core.networks import product

_SQUARINGS = 7


def gram_norm(weight: Float[Array, "outputs inputs"]) -> Float[Array, ""]:
    r"""An upper bound on ``||W||_2`` by Gram iteration.

    .. math:: G_1 = W W^T, \quad G_{k+1} = G_k^2, \quad
       \lVert W \rVert_2 \le \lVert G_k \rVert_F^{1/2^k}

    with the matrices scaled on the way; of rank r it is above the norm by the factor
    ``r^(1/2^9)`` at most: 0.7 % for 32 rows.

    Args:
        weight: Any matrix; a zero matrix has the bound 0, up to the smallest numbers.

    Source:
        Delattre, Barthelemy, Araujo & Allauzen (2023), Efficient bound of Lipschitz
        constant for convolutional layers by Gram iteration, ICML.
    """
    wide = weight if weight.shape[0] <= weight.shape[1] else weight.T
    limits = jnp.finfo(weight.dtype)
    scale = jnp.maximum(jnp.abs(weight).max(initial=0.0), limits.tiny**0.25)
    gram = product(wide / scale, (wide / scale).T)
    log_norm, power = jnp.log(scale), 0.5
    for _ in range(_SQUARINGS):
        size = jnp.linalg.norm(gram + limits.tiny**0.5)
        gram = gram / size
        log_norm, power = log_norm + power * jnp.log(size), power / 2
        gram = product(gram, gram)
    size = jnp.linalg.norm(gram + limits.tiny**0.5)
    return jnp.exp(log_norm + power * jnp.log(size)) * (1 + 64 * limits.eps)
