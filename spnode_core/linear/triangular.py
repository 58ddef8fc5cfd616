"""Lower triangular matrices from their free numbers, and back."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def lower(
    log_diagonal: Float[Array, " latent"], entries: Float[Array, " strict"]
) -> Float[Array, "latent latent"]:
    """A lower triangular matrix with a positive diagonal."""
    below = strictly_lower(entries, log_diagonal.shape[0])
    return below + jnp.diag(jnp.exp(log_diagonal))


def strictly_lower(
    entries: Float[Array, " strict"], latent: int
) -> Float[Array, "latent latent"]:
    """A lower triangular matrix with zeros on the diagonal, row after row."""
    rows, columns = np.tril_indices(latent, -1)
    empty = jnp.zeros((latent, latent), entries.dtype)
    return empty.at[rows, columns].set(entries)
