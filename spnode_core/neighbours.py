r"""How far a latent state is from everything that a surrogate was trained on.

.. math:: d(z) = \min_k \lVert S z - p_k \rVert

``p_k`` are encoded training samples, and ``S``, a diagonal, scales each latent variable
by its standard deviation over them and all of them so that 1 is the most that is usual.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_FARTHEST = 1e18
# Points that a CPU looks at together: so many numbers, or at least so many points. XLA
# shares longer loops out to threads, and one row would wait for these.
_NUMBERS, _LEAST_POINTS = 512, 32


class Neighbours(eqx.Module):
    """Some encoded training samples, scaled.

    Args:
        points: ``S z`` of each, a column each, float32: 1 is to be told from 1.0001.
        scale: The diagonal of ``S``.
    """

    points: Float[Array, "latent point"]
    scale: Float[Array, " latent"]

    @classmethod
    def of(
        cls, z: Float[Array, "point latent"], scale: Float[Array, " latent"]
    ) -> "Neighbours":
        """Keep some latent states."""
        return cls((z * scale[None]).T.astype(jnp.float32), scale)

    @classmethod
    def skeleton(cls, points: int, latent: int) -> "Neighbours":
        """Neighbours of the right shape, to be filled from an artifact."""
        return cls(jnp.zeros((latent, points), jnp.float32), jnp.ones(latent))

    def distance(self, z: Float[Array, " latent"]) -> Float[Array, ""]:
        """Distance to the nearest; above 1 where it is farther than is usual."""
        # Not |z|^2 - 2 z p + |p|^2: a product would round by the number of rows.
        at = (z * self.scale).astype(jnp.float32)[:, None]
        latent, count = self.points.shape
        block = min(count, max(_LEAST_POINTS, _NUMBERS // latent))
        if jax.default_backend() != "cpu":
            block = count

        def nearer(number: Array, least: Array) -> Array:
            # The last block reaches back where it would not be full.
            points = jax.lax.dynamic_slice_in_dim(self.points, number * block, block, 1)
            return jnp.minimum(least, jnp.min(jnp.sum((at - points) ** 2, axis=0)))

        blocks = -(-count // block)
        least = jax.lax.fori_loop(0, blocks, nearer, jnp.float32(jnp.inf))
        distance = jnp.sqrt(least).astype(jnp.float64)
        # What overflows is far, and a number.
        return jnp.where(distance < _FARTHEST, distance, _FARTHEST)
