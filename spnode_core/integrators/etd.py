"""Exponential time differencing: ETD1, ETD2RK and Krogstad's fourth order."""

from typing import ClassVar

from jaxtyping import Array, Float

from spnode_core.integrators.base import AbstractExponential, Forcing, Propagators


class ETD1(AbstractExponential):
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
        return full.combine(z, step * forcing(z))


class ETD2RK(AbstractExponential):
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
        predicted = full.combine(z, step * start)
        return predicted + full.apply(2, step * (forcing(predicted) - start))


class Krogstad(AbstractExponential):
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
        a = half.combine(z, step / 2 * n0)
        na = forcing(a)
        b = a + half.apply(2, step * (na - n0))
        nb = forcing(b)
        # What c and z+ have in common is computed once, but for matrix-free sums.
        c = full.combine(z, step * n0, 2 * step * (nb - n0))
        nc = forcing(c)
        middle = na + nb
        return full.combine(
            z,
            step * n0,
            step * (2 * middle - 3 * n0 - nc),
            4 * step * (n0 - middle + nc),
        )
