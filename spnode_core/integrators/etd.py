"""Exponential time differencing: ETD1, ETD2RK and Krogstad's fourth order."""

from typing import ClassVar

from jaxtyping import Array, Float

from spnode_core.integrators.base import AbstractIntegrator, Forcing, Propagators
from spnode_core.spec import Integrator


class ETD1(AbstractIntegrator):
    r"""Exponential Euler, order 1, exact for constant ``f``.

    .. math:: z_+ = e^Z z + h \varphi_1(Z) f(z), \quad Z = h A

    Source:
        Paper, (14); Cox & Matthews (2002), J. Comput. Phys. 176, 430-455, (4).
    """

    order: ClassVar[int] = 1
    fractions: ClassVar[tuple[float, ...]] = (1.0,)
    phi_orders: ClassVar[tuple[int, ...]] = (1,)

    def step(
        self,
        forcing: Forcing,
        propagators: Propagators,
        step: Float[Array, ""],
        z: Float[Array, " latent"],
    ) -> Float[Array, " latent"]:
        """One step of exponential Euler."""
        (full,) = propagators
        return full.apply(0, z) + step * full.apply(1, forcing(z))


class ETD2RK(AbstractIntegrator):
    r"""Exponential Runge-Kutta of order 2.

    .. math:: a = e^Z z + h \varphi_1 f(z), \quad
       z_+ = a + h \varphi_2 (f(a) - f(z))

    Source:
        Cox & Matthews (2002), J. Comput. Phys. 176, 430-455, (22).
    """

    order: ClassVar[int] = 2
    fractions: ClassVar[tuple[float, ...]] = (1.0,)
    phi_orders: ClassVar[tuple[int, ...]] = (2,)

    def step(
        self,
        forcing: Forcing,
        propagators: Propagators,
        step: Float[Array, ""],
        z: Float[Array, " latent"],
    ) -> Float[Array, " latent"]:
        """One step of ETD2RK."""
        (full,) = propagators
        start = forcing(z)
        predicted = full.apply(0, z) + step * full.apply(1, start)
        return predicted + step * full.apply(2, forcing(predicted) - start)


class Krogstad(AbstractIntegrator):
    r"""Krogstad's exponential Runge-Kutta of order 4, which keeps it on stiff problems.

    With ``N_0 = f(z)`` and ``N_a, N_b, N_c`` those of the stages,

    .. math::
        a &= e^{Z/2} z + \tfrac h2 \varphi_1(Z/2) N_0 \\
        b &= a + h \varphi_2(Z/2) (N_a - N_0) \\
        c &= e^Z z + h \varphi_1 N_0 + 2h \varphi_2 (N_b - N_0) \\
        z_+ &= e^Z z + h [(\varphi_1 - 3\varphi_2 + 4\varphi_3) N_0
           + (2\varphi_2 - 4\varphi_3)(N_a + N_b) + (4\varphi_3 - \varphi_2) N_c]

    Source:
        Krogstad (2005), J. Comput. Phys. 203, 72-88, doi:10.1016/j.jcp.2004.08.006.
    """

    order: ClassVar[int] = 4
    fractions: ClassVar[tuple[float, ...]] = (0.5, 1.0)
    phi_orders: ClassVar[tuple[int, ...]] = (2, 3)

    def step(
        self,
        forcing: Forcing,
        propagators: Propagators,
        step: Float[Array, ""],
        z: Float[Array, " latent"],
    ) -> Float[Array, " latent"]:
        """One step of Krogstad's method."""
        half, full = propagators
        n0 = forcing(z)
        a = half.apply(0, z) + step / 2 * half.apply(1, n0)
        na = forcing(a)
        b = a + step * half.apply(2, na - n0)
        nb = forcing(b)
        flow = full.apply(0, z)
        c = flow + step * (full.apply(1, n0) + 2 * full.apply(2, nb - n0))
        nc = forcing(c)
        middle = na + nb
        return flow + step * (
            full.apply(1, n0)
            + full.apply(2, 2 * middle - 3 * n0 - nc)
            + 4 * full.apply(3, n0 - middle + nc)
        )


_INTEGRATORS: dict[Integrator, type[AbstractIntegrator]] = {
    "etd1": ETD1,
    "etd2rk": ETD2RK,
    "krogstad": Krogstad,
}


def create_integrator(name: Integrator) -> AbstractIntegrator:
    """The integrator of that name."""
    return _INTEGRATORS[name]()
