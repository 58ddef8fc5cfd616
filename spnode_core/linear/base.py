"""What a linear operator ``A`` offers: its matrix and its exact flow over a step."""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from spnode_core.integrators.phi import matrix_flow
from spnode_core.linear.action import AbstractAction, DenseAction


class AbstractPropagator(eqx.Module):
    """``phi_k(h A)`` for one step ``h``, ready to be applied to latent vectors."""

    @abstractmethod
    def apply(
        self, order: int, vector: Float[Array, " latent"]
    ) -> Float[Array, " latent"]:
        """``phi_order(h A) v``."""

    def combine(
        self, *vectors: Float[Array, " latent"] | None
    ) -> Float[Array, " latent"]:
        """``sum_k phi_k(h A) v_k``, from ``k = 0`` on; None stands for zeros."""
        parts = [
            self.apply(k, vector)
            for k, vector in enumerate(vectors)
            if vector is not None
        ]
        return sum(parts[1:], parts[0])

    @abstractmethod
    def relax(self, vector: Float[Array, " latent"]) -> Float[Array, " latent"]:
        """``(I - e^{h A}) v``, without cancellation; exactly 0 at ``h = 0``."""


class DensePropagator(AbstractPropagator):
    """Stacked matrices ``e^{h A} - I, phi_1(h A) .. phi_order(h A)``."""

    flow: Float[Array, "order latent latent"]

    def apply(
        self, order: int, vector: Float[Array, " latent"]
    ) -> Float[Array, " latent"]:
        """``phi_order(h A) v``."""
        product = self.flow[order] @ vector
        return vector + product if order == 0 else product

    def relax(self, vector: Float[Array, " latent"]) -> Float[Array, " latent"]:
        """``(I - e^{h A}) v``, without cancellation; exactly 0 at ``h = 0``."""
        return -(self.flow[0] @ vector)


class AbstractLinearOperator(eqx.Module):
    """A linear operator ``A`` on latent vectors, 1/time."""

    @abstractmethod
    def matrix(
        self, parameters: Float[Array, " parameter"] | None = None
    ) -> Float[Array, "latent latent"]:
        """``A`` as a dense matrix, 1/time."""

    def propagator(
        self,
        step: Float[Array, ""],
        order: int,
        parameters: Float[Array, " parameter"] | None = None,
    ) -> AbstractPropagator:
        """``phi_0(h A) .. phi_order(h A)`` for one step.

        Args:
            step: Length h, in time.
            order: Highest phi function that will be applied.
            parameters: Normalised parameters, for operators that depend on them.
        """
        return DensePropagator(matrix_flow(order, step * self.matrix(parameters)))

    def apply(
        self,
        vector: Float[Array, " latent"],
        parameters: Float[Array, " parameter"] | None = None,
    ) -> Float[Array, " latent"]:
        """``A v``, 1/time."""
        return self.action(parameters).apply(vector)

    def action(
        self, parameters: Float[Array, " parameter"] | None = None
    ) -> AbstractAction:
        """``v -> A v``, to be applied many times, 1/time."""
        return DenseAction(self.matrix(parameters))

    @property
    def is_elementwise(self) -> bool:
        """Whether propagators cost no more than a product does."""
        return False

    def eigenvalues(
        self, parameters: Float[Array, " parameter"] | None = None
    ) -> Float[Array, "latent 2"]:
        """Real and imaginary parts of the eigenvalues of ``A``, 1/time."""
        values = jnp.linalg.eigvals(self.matrix(parameters))
        return jnp.stack([values.real, values.imag], axis=-1)

    @property
    def depends_on_parameters(self) -> bool:
        """Whether ``A`` is a function of the parameters p."""
        return False
