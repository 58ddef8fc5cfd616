"""What an exponential integrator offers: one step of the latent dynamics."""

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
from jaxtyping import Array, Float

from spnode_core.linear.base import AbstractLinearOperator, AbstractPropagator

Forcing = Callable[[Float[Array, " latent"]], Float[Array, " latent"]]
Propagators = tuple[AbstractPropagator, ...]


class AbstractIntegrator(eqx.Module):
    """A one-step method for ``z' = A z + f(z)`` that is exact when ``f`` is constant.

    ``fractions`` are the parts of a step whose propagators the method applies,
    ``phi_orders`` the highest phi function of each, ``order`` the order of the global
    error.
    """

    order: ClassVar[int]
    fractions: ClassVar[tuple[float, ...]]
    phi_orders: ClassVar[tuple[int, ...]]

    def propagators(
        self,
        linear: AbstractLinearOperator,
        step: Float[Array, ""],
        parameters: Float[Array, " parameter"] | None,
        *,
        is_relaxation: bool = False,
    ) -> Propagators:
        """What this method needs of ``e^{h A}`` and its phi functions for one step."""
        orders = (0,) if is_relaxation else self.phi_orders
        return tuple(
            linear.propagator(fraction * step, order, parameters)
            for fraction, order in zip(self.fractions, orders, strict=True)
        )

    @abstractmethod
    def step(
        self,
        forcing: Forcing,
        propagators: Propagators,
        step: Float[Array, ""],
        z: Float[Array, " latent"],
    ) -> Float[Array, " latent"]:
        """The state after one step.

        Args:
            forcing: ``f`` with controls and parameters filled in, 1/time.
            propagators: Those of :meth:`propagators` for this step.
            step: Its length h, in time.
            z: Latent state at its start.
        """


def relaxation_step(
    target: Forcing, propagators: Propagators, z: Float[Array, " latent"]
) -> Float[Array, " latent"]:
    """ETD1 on ``f = -A g``: ``z + (I - e^{hA}) (g(z) - z)``, exactly z at h = 0."""
    return z + propagators[0].relax(target(z) - z)


def stacked_propagators(
    integrator: AbstractIntegrator,
    linear: AbstractLinearOperator,
    steps: Float[Array, " step"],
    parameters: Float[Array, " parameter"] | None,
    *,
    is_relaxation: bool,
) -> Propagators:
    """The propagators of several steps, each leaf with a leading axis ``step``."""

    def one(step: Float[Array, ""]) -> Propagators:
        return integrator.propagators(
            linear, step, parameters, is_relaxation=is_relaxation
        )

    return jax.vmap(one)(steps)
