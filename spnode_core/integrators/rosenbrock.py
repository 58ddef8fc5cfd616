"""Methods that linearise at every step; the exponential one of order 3."""

from typing import ClassVar

import jax
from jaxtyping import Array, Float

from spnode_core.integrators.base import AbstractIntegrator, Forcing, Propagators
from spnode_core.integrators.phi import matrix_flow
from spnode_core.linear.action import DenseAction
from spnode_core.linear.base import AbstractLinearOperator


class AbstractRosenbrock(AbstractIntegrator):
    """A method that linearises at every step, so needs nothing of ``A`` but itself."""

    def propagators(
        self,
        linear: AbstractLinearOperator,
        step: Float[Array, ""],
        parameters: Float[Array, " parameter"] | None,
        *,
        is_relaxation: bool = False,
    ) -> Propagators:
        """``A`` itself, whatever the length of the step."""
        return (DenseAction(linear.matrix(parameters)),)


class EXPRB32(AbstractRosenbrock):
    r"""Exponential Rosenbrock of order 3, for ``f`` that is itself stiff.

    With :math:`F(z) = A z + f(z)` and :math:`J = A + f'(z)`,

    .. math:: U = z + h \varphi_1(hJ) F(z), \quad
       z_+ = U + 2h \varphi_3(hJ) (f(U) - f(z) - f'(z)(U - z))

    ``J`` differs from state to state, so its phi functions are dense and made anew at
    each step of each trajectory: for small latent spaces.

    Source:
        Hochbruck, Ostermann & Schweitzer (2009), SIAM J. Numer. Anal. 47, 786-803,
        doi:10.1137/080717717.
    """

    order: ClassVar[int] = 3

    def step(
        self,
        forcing: Forcing,
        propagators: Propagators,
        step: Float[Array, ""],
        z: Float[Array, " latent"],
    ) -> Float[Array, " latent"]:
        """One step of EXPRB32."""
        (linear,) = propagators
        start, slope = forcing(z), jax.jacfwd(forcing)(z)
        flow = matrix_flow(3, step * (linear.matrix + slope))
        change = step * (flow[1] @ (linear.apply(z) + start))
        predicted = z + change
        # A is in J and in F, so it drops out of the difference.
        curved = forcing(predicted) - start - slope @ change
        return predicted + 2 * step * (flow[3] @ curved)
