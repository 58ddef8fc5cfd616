r"""Training of autoencoder and dynamics on single samples, without rollouts.

With ``y`` the whitened principal coordinates of a sample, ``F`` the latent dynamics,
and energies as units,

.. math:: |y - D(E(y))|_\sigma^2 + d\, |D'(z) F(z) - y'|_\sigma^2
   + e\, |F(z) - E'(y)\, y'|^2, \quad z = E(y).

The slopes ``y'`` come from operator inference on all of those coordinates: differences
of sparse samples would be far too coarse.

Source:
    Champion, Lusch, Kutz & Brunton (2019), PNAS 116, 22445-22451, (5)-(8): the three
    terms, there for sparse dynamics.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from spnode_core.autoencoder import PODAutoencoder
from spnode_core.spec import PretrainingSpec
from spnode_core.surrogate import Surrogate
from spnode_core.training.operator_inference import (
    Operators,
    Snapshots,
    derivative,
)


class Manifold(NamedTuple):
    """Samples to pretrain on; a pytree of arrays."""

    y: Float[Array, "sample mode"]
    slope: Float[Array, "sample mode"]
    """``y'``, 1/time."""
    others: Float[Array, "sample other"]
    """Normalised controls, then parameters."""
    energy: Float[Array, " mode"]
    """Variance of each mode in normalised states."""
    sizes: Float[Array, " term"]
    """Mean energy of states, of slopes, and of latent slopes: the units of the loss."""

    def rows(self, index: Int[Array, " row"]) -> "Manifold":
        """Some of the samples."""
        return self._replace(
            y=self.y[index], slope=self.slope[index], others=self.others[index]
        )


def build_manifold(
    surrogate: Surrogate, snapshots: list[Snapshots], operators: Operators
) -> Manifold:
    """Samples and slopes for the loss.

    Args:
        surrogate: One with a POD autoencoder.
        snapshots: Trajectories in its principal coordinates.
        operators: What gives ``y'`` at a sample, inferred from these coordinates.
    """
    autoencoder = surrogate.autoencoder
    assert isinstance(autoencoder, PODAutoencoder)
    y = np.concatenate([each.z for each in snapshots])
    others = np.concatenate([each.others for each in snapshots])
    slope = derivative(operators, y, others)
    energy = np.asarray(autoencoder.directions.deviations) ** 2
    latent = slope[:, : autoencoder.latent]
    sizes = [
        np.mean(y**2 @ energy),
        np.mean(slope**2 @ energy),
        np.mean(np.sum(latent**2, axis=1)),
    ]
    return Manifold(*map(jnp.asarray, (y, slope, others, energy, np.array(sizes))))


def manifold_loss(
    surrogate: Surrogate, samples: Manifold, spec: PretrainingSpec
) -> Float[Array, ""]:
    """Fraction of the energy that is lost, plus that of the slopes, by their weights.

    Args:
        surrogate: The model, with a POD autoencoder.
        samples: Some rows of a manifold.
        spec: Weights of the parts.
    """
    autoencoder = surrogate.autoencoder
    assert isinstance(autoencoder, PODAutoencoder)
    dynamics = surrogate.dynamics.prepared()
    controls = len(surrogate.signature.controls)

    def parts(
        y: Float[Array, " mode"],
        slope: Float[Array, " mode"],
        others: Float[Array, " other"],
    ) -> Float[Array, " term"]:
        u, p = others[:controls], others[controls:]
        z, wanted = jax.jvp(autoencoder.encode_modes, (y,), (slope,))
        change = dynamics.derivative(z, u, p)
        decode = lambda v: autoencoder.decode_modes(v, p)  # noqa: E731
        restored, velocity = jax.jvp(decode, (z,), (change,))
        return jnp.stack(
            [
                jnp.sum(samples.energy * (restored - y) ** 2),
                jnp.sum(samples.energy * (velocity - slope) ** 2),
                jnp.sum((change - wanted) ** 2),
            ]
        )

    terms = jax.vmap(parts)(samples.y, samples.slope, samples.others).mean(axis=0)
    weights = jnp.array([1.0, spec.derivative, spec.encoder])
    return jnp.sum(weights * terms / samples.sizes)
