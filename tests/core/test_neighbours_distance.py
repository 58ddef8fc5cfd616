"""The distance to the nearest sample, by blocks of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spnode_core.neighbours import Neighbours


@pytest.mark.parametrize(("points", "latent"), [(1, 3), (63, 8), (130, 8), (512, 40)])
def test_it_is_that_to_the_nearest_of_all(points, latent):
    draws = np.random.default_rng(points)
    kept, z = draws.normal(size=(points, latent)), draws.normal(size=(5, latent))
    scale = draws.uniform(0.5, 2, latent)
    neighbours = Neighbours.of(jnp.asarray(kept), jnp.asarray(scale))
    found = jax.vmap(neighbours.distance)(jnp.asarray(z))
    apart = np.linalg.norm((z[:, None] - kept[None]) * scale, axis=2)
    np.testing.assert_allclose(found, apart.min(axis=1), rtol=1e-5)
    # Whichever it is, the last sample among them.
    at_last = neighbours.distance(jnp.asarray(kept[-1]))
    assert float(at_last) < 1e-5


def test_what_overflows_is_far():
    neighbours = Neighbours.of(jnp.zeros((70, 2)), jnp.ones(2))
    assert float(neighbours.distance(jnp.array([1e30, 0.0]))) == 1e18
