r"""Claims about the linear part alone: its eigenvalues, its norms and its transients.

.. math:: \alpha(A) = \max \mathrm{Re}\, \lambda \le \mu_P(A), \qquad
   \lVert e^{tA} \rVert_2 \le \sqrt{\mathrm{cond}(P)}\, e^{\mu_P(A) t}
"""

from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from spnode_core.certificates.claims import (
    Certificate,
    claim,
    in_words,
    says_nothing,
    unknown,
)
from spnode_core.certificates.domain import parameter_extent
from spnode_core.certificates.facts import Facts, middle
from spnode_core.certificates.norms import condition
from spnode_core.linear.hurwitz import HurwitzOperator
from spnode_core.linear.modal import ModalOperator
from spnode_core.linear.symbol import SymbolOperator
from spnode_core.spec import LARGEST_CERTIFIED

if TYPE_CHECKING:
    from spnode_core.surrogate import Surrogate


def spectral_abscissa(surrogate: "Surrogate") -> Certificate:
    """Largest real part among the eigenvalues of A, 1/time; below 0 is Hurwitz."""
    linear = surrogate.dynamics.linear
    shift = getattr(linear, "shift", None)
    by_construction = shift == 0
    value, rounding = _abscissa(surrogate)
    assumptions = []
    if rounding:
        assumptions.append(
            f"eigenvalues computed in float64: those of a matrix within {rounding:.1g}"
        )
    if linear.depends_on_parameters:
        assumptions.append("parameters inside the training box")
    if shift is not None:
        value = min(value, shift)
    holds = by_construction or value + rounding < 0
    if holds:
        said = (
            f"Every eigenvalue of A has real part at most {value:.3g}: the linear part "
            "alone decays."
        )
    elif value < 0:
        said = (
            "It is not proved that the linear part alone decays: the largest real part "
            f"is {value:.3g}, and rounding may have moved it by {rounding:.2g}."
        )
    else:
        may, does = "has", "does not"
        if linear.depends_on_parameters:
            may, does = "may have", "need not"
        said = (
            f"A {may} an eigenvalue with real part {value:.3g}: the linear part alone "
            f"{does} decay."
        )
    return claim(
        holds,
        said,
        tuple(assumptions),
        value=value,
        unit="1/time",
        by_construction=by_construction,
        eigenvalues=_eigenvalues(surrogate),
    )


def _eigenvalues(surrogate: "Surrogate") -> list[list[float]] | None:
    """Real and imaginary parts, at the middle of the parameters; slowest first."""
    linear = surrogate.dynamics.linear
    if surrogate.signature.latent > LARGEST_CERTIFIED:
        return None
    found = np.linalg.eigvals(np.asarray(linear.matrix(middle(surrogate)), np.float64))
    order = np.lexsort((found.imag, -found.real))
    return [[float(each.real), float(each.imag)] for each in found[order]]


def _abscissa(surrogate: "Surrogate") -> tuple[float, float]:
    """Largest real part, and the size of a change of A that may move it."""
    linear = surrogate.dynamics.linear
    if isinstance(linear, ModalOperator):
        # Over the training box each rate is slowest at one of its corners.
        reach = parameter_extent(surrogate) if linear.depends_on_parameters else []
        slowest = linear.log_rates - jnp.abs(linear.sensitivity) @ jnp.asarray(reach)
        return float(linear.shift - jnp.exp(jnp.min(slowest))), 0.0
    if isinstance(linear, SymbolOperator):
        return float(linear.symbol().real.max()), 0.0
    matrix = np.asarray(linear.matrix())
    value = float(np.linalg.eigvals(matrix).real.max())
    return value, float(np.finfo(np.float64).eps * np.linalg.norm(matrix, 2))


def log_norm(facts: Facts) -> Certificate:
    """``mu_2(A) = lmax(sym A)``, 1/time: how fast the Euclidean norm may grow."""
    value = facts.log_norm
    said = (
        f"The logarithmic norm of A is {value:.3g}: no linear transient grows in the "
        "Euclidean norm, not even for a moment."
        if value < 0
        else f"The logarithmic norm of A is {value:.3g}: the Euclidean norm of a "
        "linear transient may grow at first, at that rate at most."
    )
    return claim(value < 0, said, facts.within, value=value, unit="1/time")


def lyapunov(facts: Facts) -> Certificate:
    """A norm in which A decays: ``z^T P z``, with ``c = -mu_P(A)``, 1/time."""
    p = facts.transform.T @ facts.transform
    cond = condition(facts.transform) ** 2
    linear = facts.dynamics.linear
    is_factored = isinstance(linear, HurwitzOperator)
    c0 = facts.decay + linear.shift if is_factored else None
    numbers = {"decay": facts.decay, "c0": c0, "unit": "1/time", "condition": cond}
    if facts.decay <= 0:
        reason = f"the best norm that is known grows at rate {-facts.decay:.3g}"
        return unknown("A decays in no norm that is known", reason, **numbers)
    size = len(p)
    listed = p if facts.modes is None and size <= 32 else None
    return claim(
        True,
        f"z^T P z falls along the linear flow, its root at rate {facts.decay:.3g} "
        f"1/time at least ({facts.source}; the condition number of P is "
        f"{in_words(cond)}).",
        facts.within,
        is_vacuous=says_nothing(cond),
        **numbers,
        source=facts.source,
        matrix=listed,
    )


def transient_bound(facts: Facts) -> Certificate:
    """A bound on ``sup_t ||e^{tA}||_2``: how far a linear transient may rise."""
    what = "No bound on linear transients is known"
    if facts.decay <= 0 and facts.log_norm > 0:
        return unknown(what, "A decays in no norm that is known")
    bound = 1.0 if facts.log_norm <= 0 else condition(facts.transform)
    said = (
        "No linear transient ever exceeds its initial size."
        if bound == 1.0
        else f"No linear transient exceeds {in_words(bound)} times its initial size."
    )
    return claim(True, said, facts.within, is_vacuous=says_nothing(bound), value=bound)
