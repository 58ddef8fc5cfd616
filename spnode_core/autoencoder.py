"""Encoder and decoder: a linear map plus a tanh network each, or none at all."""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from spnode_core.networks import Network
from spnode_core.spec import ResidualSpec

# The decoder begins close to its linear part, the inverse of the encoder's.
_DECODER_SCALE = 0.1


class AbstractAutoencoder(eqx.Module):
    """``z = E(features)`` and ``outputs = D(z, p)``, both in normalised numbers."""

    @abstractmethod
    def encode(self, features: Float[Array, " feature"]) -> Float[Array, " latent"]:
        """Latent state of normalised states, sums and parameters."""

    @abstractmethod
    def decode(
        self, z: Float[Array, " latent"], parameters: Float[Array, " parameter"]
    ) -> Float[Array, " free"]:
        """Free outputs, which a constraint turns into states."""


class NoAutoencoder(AbstractAutoencoder):
    """The latent state is the normalised state.

    Args:
        states: Number of states.
    """

    states: int = eqx.field(static=True)

    def encode(self, features: Float[Array, " feature"]) -> Float[Array, " latent"]:
        """The normalised states among the features."""
        return features[: self.states]

    def decode(
        self, z: Float[Array, " latent"], parameters: Float[Array, " parameter"]
    ) -> Float[Array, " free"]:
        """The latent state itself."""
        return z


class ResidualAutoencoder(AbstractAutoencoder):
    """``E(v) = W v + N_E(v)``, ``D(z, p) = V z + N_D([z, p])``.

    ``W`` starts semi-orthogonal (or as the given basis) and ``V`` as its transpose, so
    that ``D`` begins near the inverse of ``E``; ``n`` may exceed the number of states.

    Args:
        spec: Width and depth of both networks.
        features: Number of normalised states, sums and parameters.
        parameters: Number of parameters among them.
        free: The states that the outputs stand for, by index.
        latent: Number of latent variables n.
        basis: Initial ``W`` on the states, ``(latent, state)`` with orthonormal rows,
            e.g. the leading principal directions; None draws one.
        dtype: Dtype of the networks; ``W`` and ``V`` are float64.
        key: Source of the initial weights.
    """

    encoder_matrix: Float[Array, "latent feature"]
    encoder_network: Network
    decoder_matrix: Float[Array, "free latent"]
    decoder_network: Network

    def __init__(
        self,
        spec: ResidualSpec,
        *,
        features: int,
        parameters: int,
        free: tuple[int, ...],
        latent: int,
        dtype: jnp.dtype,
        key: PRNGKeyArray,
        basis: Float[Array, "latent state"] | None = None,
    ) -> None:
        basis_key, encoder_key, decoder_key = jax.random.split(key, 3)
        size = max(latent, features)
        square = jax.random.normal(basis_key, (size, size), jnp.float64)
        matrix = jnp.linalg.qr(square)[0][:latent, :features]
        if basis is not None:
            matrix = jnp.zeros((latent, features)).at[:, : basis.shape[1]].set(basis)
        self.encoder_matrix = matrix
        self.decoder_matrix = matrix.T[jnp.array(free)]
        shape = {"width": spec.width, "depth": spec.depth, "dtype": dtype}
        self.encoder_network = Network(features, latent, key=encoder_key, **shape)
        self.decoder_network = Network(
            latent + parameters,
            len(free),
            key=decoder_key,
            last_scale=_DECODER_SCALE,
            **shape,
        )

    def encode(self, features: Float[Array, " feature"]) -> Float[Array, " latent"]:
        """``W v + N_E(v)``."""
        return self.encoder_matrix @ features + self.encoder_network(features)

    def decode(
        self, z: Float[Array, " latent"], parameters: Float[Array, " parameter"]
    ) -> Float[Array, " free"]:
        """``V z + N_D([z, p])``."""
        inputs = jnp.concatenate([z, parameters])
        return self.decoder_matrix @ z + self.decoder_network(inputs)
