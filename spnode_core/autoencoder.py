"""Encoder and decoder: principal directions, linear maps with networks, or none."""

from abc import abstractmethod
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from spnode_core.networks import Network, WithMatrices
from spnode_core.spec import PODSpec, ResidualSpec

# The decoder begins close to its linear part, the inverse of the encoder's.
_DECODER_SCALE = 0.1


class AbstractAutoencoder(eqx.Module):
    """``z = E(features)`` and ``outputs = D(z, p)``, both in normalised numbers."""

    @abstractmethod
    def encode(self, features: Float[Array, " feature"]) -> Float[Array, " latent"]:
        """Latent state of normalised states, sums, parameters and logarithms."""

    @abstractmethod
    def decode(
        self, z: Float[Array, " latent"], parameters: Float[Array, " parameter"]
    ) -> Float[Array, " free"]:
        """Free outputs, which a constraint turns into states."""

    @abstractmethod
    def encode_bound(
        self, features: Float[Array, " feature"]
    ) -> Float[Array, " latent"]:
        """What no ``|z_i|`` exceeds where no feature's modulus exceeds these."""

    @abstractmethod
    def decode_bound(self, z: Float[Array, " latent"]) -> Float[Array, " free"]:
        """What no output's modulus exceeds where no ``|z_i|`` exceeds these."""


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

    def encode_bound(
        self, features: Float[Array, " feature"]
    ) -> Float[Array, " latent"]:
        """Those of the states."""
        return features[: self.states]

    def decode_bound(self, z: Float[Array, " latent"]) -> Float[Array, " free"]:
        """Those of the latent variables."""
        return z


class ResidualAutoencoder(AbstractAutoencoder, WithMatrices):
    """``E(v) = W v + N_E(v)``, ``D(z, p) = V z + N_D([z, p])``.

    ``W`` starts semi-orthogonal (or as the given basis) and ``V`` as its transpose, so
    that ``D`` begins near the inverse of ``E``; ``n`` may exceed the number of states.

    Args:
        spec: Width and depth of both networks.
        features: Number of normalised states, sums, parameters and logarithms.
        parameters: Number of parameters among them.
        free: The states that the outputs stand for, by index.
        latent: Number of latent variables n.
        basis: Initial ``W`` on the states, ``(latent, state)`` with orthonormal rows,
            e.g. the leading principal directions; None draws one.
        dtype: Dtype of the networks; ``W`` and ``V`` are float64.
        key: Source of the initial weights.
    """

    # The decoder's has few outputs: those of its tangents would round otherwise.
    matrices: ClassVar = ("encoder_matrix",)
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

    def encode_bound(
        self, features: Float[Array, " feature"]
    ) -> Float[Array, " latent"]:
        """By the moduli of the map and of the network's last layer."""
        return jnp.abs(self.encoder_matrix) @ features + self.encoder_network.bound()

    def decode_bound(self, z: Float[Array, " latent"]) -> Float[Array, " free"]:
        """By the moduli of the map and of the network's last layer."""
        return jnp.abs(self.decoder_matrix) @ z + self.decoder_network.bound()


class Directions(NamedTuple):
    """Principal directions of normalised states around their mean, largest first."""

    centre: Float[Array, " state"]
    vectors: Float[Array, "mode state"]
    """Orthonormal rows."""
    deviations: Float[Array, " mode"]
    """Standard deviation of the data along each; positive."""

    @classmethod
    def skeleton(cls, modes: int, states: int) -> "Directions":
        """Directions of the right shape, to be filled from an artifact."""
        return cls(jnp.zeros(states), jnp.zeros((modes, states)), jnp.ones(modes))


class PODAutoencoder(AbstractAutoencoder):
    r"""Whitened principal directions, with or without networks on them.

    .. math:: y = \Sigma^{-1} W (v - \bar v), \quad
       E(v) = y_{1..n} + N_E(y), \quad
       D(z, p) = \bar v + W^T \Sigma\, [(z, 0) + N_D([z, p])]

    The directions are those of the data and are never trained; without networks
    ``modes = n`` and E, D are the orthogonal projection.

    Args:
        spec: Width and depth of the networks, if any.
        directions: The principal directions, at least ``latent`` of them.
        latent: Number of latent variables n.
        parameters: Number of parameters.
        dtype: Dtype of the networks.
        key: Source of the initial weights.

    Source:
        Sirovich (1987), Q. Appl. Math. 45, 561-571 (snapshots); Berkooz, Holmes &
        Lumley (1993), Annu. Rev. Fluid Mech. 25, 539-575.
    """

    directions: Directions
    encoder_network: Network | None
    decoder_network: Network | None
    latent: int = eqx.field(static=True)

    def __init__(
        self,
        spec: PODSpec,
        directions: Directions,
        *,
        latent: int,
        parameters: int,
        dtype: jnp.dtype,
        key: PRNGKeyArray,
    ) -> None:
        self.directions, self.latent = directions, latent
        self.encoder_network = self.decoder_network = None
        if spec.width is None:
            return
        modes = directions.deviations.shape[0]
        keys = jax.random.split(key)
        shape = {"width": spec.width, "depth": spec.depth, "dtype": dtype}
        small = {"last_scale": _DECODER_SCALE, **shape}
        self.encoder_network = Network(modes, latent, key=keys[0], **small)
        self.decoder_network = Network(latent + parameters, modes, key=keys[1], **small)

    def modes(self, v: Float[Array, " state"]) -> Float[Array, " mode"]:
        """``y``: coordinates of a normalised state, of unit variance in the data."""
        centre, vectors, deviations = self.directions
        return vectors @ (v - centre) / deviations

    def encode(self, features: Float[Array, " feature"]) -> Float[Array, " latent"]:
        """``y_{1..n} + N_E(y)``; it sees no sums or parameters among the features."""
        states = self.directions.centre.shape[0]
        return self.encode_modes(self.modes(features[:states]))

    def encode_modes(self, y: Float[Array, " mode"]) -> Float[Array, " latent"]:
        """``y_{1..n} + N_E(y)``."""
        z = y[: self.latent]
        return z if self.encoder_network is None else z + self.encoder_network(y)

    def decode_modes(
        self, z: Float[Array, " latent"], parameters: Float[Array, " parameter"]
    ) -> Float[Array, " mode"]:
        """``(z, 0) + N_D([z, p])``."""
        y = jnp.zeros_like(self.directions.deviations).at[: self.latent].set(z)
        if self.decoder_network is None:
            return y
        return y + self.decoder_network(jnp.concatenate([z, parameters]))

    def decode(
        self, z: Float[Array, " latent"], parameters: Float[Array, " parameter"]
    ) -> Float[Array, " free"]:
        """Normalised states."""
        centre, vectors, deviations = self.directions
        return centre + (deviations * self.decode_modes(z, parameters)) @ vectors

    def encode_bound(
        self, features: Float[Array, " feature"]
    ) -> Float[Array, " latent"]:
        """By the moduli of the directions and of the network's last layer."""
        centre, vectors, deviations = self.directions
        moved = features[: centre.shape[0]] + jnp.abs(centre)
        z = ((jnp.abs(vectors) @ moved) / deviations)[: self.latent]
        return z if self.encoder_network is None else z + self.encoder_network.bound()

    def decode_bound(self, z: Float[Array, " latent"]) -> Float[Array, " free"]:
        """By the moduli of the directions and of the network's last layer."""
        centre, vectors, deviations = self.directions
        y = jnp.zeros_like(deviations).at[: self.latent].set(z)
        if self.decoder_network is not None:
            y = y + self.decoder_network.bound()
        return jnp.abs(centre) + (deviations * y) @ jnp.abs(vectors)
