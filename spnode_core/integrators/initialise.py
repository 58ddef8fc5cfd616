"""Integrators by their name."""

from spnode_core.integrators.base import AbstractExponential, AbstractIntegrator
from spnode_core.integrators.etd import ETD1, ETD2RK, Krogstad
from spnode_core.integrators.imex import IMEXSSP2
from spnode_core.integrators.rodas import RODAS4
from spnode_core.integrators.rosenbrock import EXPRB32
from spnode_core.spec import Integrator

_EXPONENTIAL: dict[Integrator, type[AbstractExponential]] = {
    "etd1": ETD1,
    "etd2rk": ETD2RK,
    "krogstad": Krogstad,
}


def create_integrator(
    name: Integrator, *, matrix_free: bool = False
) -> AbstractIntegrator:
    """The integrator of that name.

    Args:
        name: Which.
        matrix_free: Whether phi functions act on vectors without being formed, for
            ``etd1``, ``etd2rk`` and ``krogstad``.
    """
    if name == "exprb32":
        return EXPRB32()
    if name == "rodas4":
        return RODAS4()
    if name == "imex_ssp2":
        return IMEXSSP2()
    return _EXPONENTIAL[name](matrix_free=matrix_free)
