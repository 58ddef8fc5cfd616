"""What an integrator offers: one step of the latent dynamics.

What a method needs of ``A`` for one length of step, its propagators, is worked out once
and serves the whole batch; actions of ``A`` in it are the same for every length.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
from jaxtyping import Array, Float

from spnode_core.integrators.matrix_free import MatrixFreePropagator
from spnode_core.linear.action import AbstractAction
from spnode_core.linear.base import AbstractLinearOperator, AbstractPropagator

Forcing = Callable[[Float[Array, " latent"]], Float[Array, " latent"]]
Propagators = tuple[Any, ...]


class AbstractIntegrator(eqx.Module):
    """A one-step method for ``z' = A z + f(z)``; ``order`` is that of its error."""

    order: ClassVar[int]

    @abstractmethod
    def propagators(
        self,
        linear: AbstractLinearOperator,
        step: Float[Array, ""],
        parameters: Float[Array, " parameter"] | None,
        *,
        is_relaxation: bool = False,
    ) -> Propagators:
        """What this method needs of ``A`` for one length of step.

        Args:
            linear: ``A``.
            step: The length h, in time.
            parameters: Normalised parameters, for operators that depend on them.
            is_relaxation: Whether only :func:`relaxation_step` will be called.
        """

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


class AbstractExponential(AbstractIntegrator):
    """A method that is exact when ``f`` is constant, by phi functions of ``h A``.

    ``fractions`` are the parts of a step whose propagators the method applies,
    ``phi_orders`` the highest phi function of each.

    Args:
        matrix_free: Whether phi functions act on vectors without being formed, unless
            they are elementwise anyway.
    """

    fractions: ClassVar[tuple[float, ...]]
    phi_orders: ClassVar[tuple[int, ...]]
    matrix_free: bool = eqx.field(static=True, default=False)

    def propagators(
        self,
        linear: AbstractLinearOperator,
        step: Float[Array, ""],
        parameters: Float[Array, " parameter"] | None,
        *,
        is_relaxation: bool = False,
    ) -> tuple[AbstractPropagator, ...]:
        """``e^{h A}`` and its phi functions, for each fraction of the step."""
        fractions = (1.0,) if is_relaxation else self.fractions
        if self.matrix_free and not linear.is_elementwise:
            action = linear.action(parameters)
            return tuple(
                MatrixFreePropagator(action, part * step) for part in fractions
            )
        orders = (0,) if is_relaxation else self.phi_orders
        return tuple(
            linear.propagator(fraction * step, order, parameters)
            for fraction, order in zip(fractions, orders, strict=True)
        )


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
    """The propagators of several steps, each leaf with a leading axis ``step``.

    Actions of ``A`` have none: all steps share them. See :func:`separated`.
    """

    def one(step: Float[Array, ""]) -> tuple[Propagators, Propagators]:
        return separated(
            integrator.propagators(
                linear, step, parameters, is_relaxation=is_relaxation
            )
        )

    return joined(*jax.vmap(one, out_axes=(None, 0))(steps))


def separated(propagators: Propagators) -> tuple[Propagators, Propagators]:
    """What all steps share of propagators, the actions of ``A``, and what each has."""
    return eqx.partition(propagators, _is_action, is_leaf=_is_action)


def joined(shared: Propagators, each: Propagators) -> Propagators:
    """The propagators whose parts :func:`separated` gave."""
    return eqx.combine(shared, each, is_leaf=_is_action)


def _is_action(node: object) -> bool:
    return isinstance(node, AbstractAction)
