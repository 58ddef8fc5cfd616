r"""Whether all rollouts come together: one equilibrium and no memory of the start.

Two rollouts with equal parameters and controls are compared, at distance
:math:`d = z - w`, in the norm of P or in the largest component. Contraction by less
than a millionth over the time that the data cover says nothing. Proofs:
``docs/certificates.md``.
"""

import math
from typing import Any

import numpy as np

from spnode_core.certificates.claims import (
    EXACT,
    Certificate,
    claim,
    says_nothing,
    unknown,
)
from spnode_core.certificates.facts import Facts
from spnode_core.certificates.norms import Matrix, bases, condition, log_norm

# Eigenvectors this dependent on each other are a Jordan block up to rounding.
_DEFECTIVE = 1e7
_SAME = "two rollouts with the same parameters and the same controls"
_FLOW = "the exact flow of the latent dynamics; steps of an integrator approximate it"


def fixed_point(facts: Facts) -> Certificate:
    r"""Theorem 3: a fixed point is stable where :math:`L\,\mathrm{cond}(T) < \delta`.

    ``T`` turns A into ``T^-1 A T`` with :math:`\mu_2(T^{-1} A T) = -\delta`: its
    eigenvectors, Schur vectors scaled like a Jordan basis where those are defective, or
    the factor of P, whichever leaves most room.

    Source:
        Paper, Theorem 3.
    """
    (name, cond, delta), own = _best_basis(facts)
    slope = facts.slopes.euclid
    numbers = {
        "lipschitz": slope,
        "condition": cond,
        "delta": delta,
        "basis": name,
        "eigenvector_condition": own,
    }
    defective = "" if own is not None else " (the eigenvectors of A are defective)"
    what = "Stability of a fixed point does not follow from theorem 3"
    if delta <= 0:
        return unknown(what, "A does not decay in any basis that was tried", **numbers)
    product = slope * cond
    found = f"L cond(T) = {product:.3g}, delta = {delta:.3g}, T = {name}{defective}"
    if product >= delta:
        return unknown(what, f"{found}, and L cond(T) is not the smaller", **numbers)
    radius = facts.slopes.radius
    where = "" if radius is None else f" with |z| below {radius:.3g}"
    return claim(
        True,
        f"Every fixed point of the exact flow{where} is stable in the sense of "
        f"Lyapunov: {found}.",
        (*facts.within, _FLOW),
        **numbers,
    )


def contraction(facts: Facts) -> Certificate:
    r"""The global form of theorem 3: :math:`\mu_P(A) + L_P < 0`, for the exact flow.

    With relaxation form and real rates also :math:`L_\infty(g) < 1`, at rate
    :math:`r_{min} (1 - L_\infty)` in the largest component, weighted or not.
    """
    rate, norm = facts.decay - facts.slopes.lyapunov, "P"
    numbers: dict[str, Any] = {
        "decay": facts.decay,
        "lipschitz": facts.slopes.lyapunov,
    }
    target = _target_slope(facts)
    if target is not None and target[0] < 1 and rate <= 0:
        rate, norm = facts.decay * (1 - target[0]), f"{_which(target[1])} component"
        numbers = {"decay": facts.decay, "target_lipschitz": target[0]}
        numbers["weights"] = target[1]
    what = "Contraction of the exact flow is not proved"
    if facts.slopes.radius is not None:
        reason = "f is bounded in slope inside a ball only"
        return unknown(what, reason, **numbers, rate=None)
    if rate <= 0:
        reason = (
            f"f may change at rate {facts.slopes.lyapunov:.3g} in the norm of P, more "
            f"than A decays, {facts.decay:.3g}"
        )
        return unknown(what, reason, **numbers, rate=None)
    return claim(
        True,
        "There is one equilibrium for each value of parameters and controls, and any "
        "two trajectories of the exact flow approach each other at rate "
        f"{rate:.3g} 1/time at least (norm: {norm}).",
        (*facts.within, _SAME, _FLOW),
        is_vacuous=_is_vacuous(facts, rate),
        **numbers,
        rate=rate,
        norm=norm,
        unit="1/time",
    )


def step_contraction(facts: Facts) -> Certificate:
    r"""The discrete theorem: with :math:`L_P < c` each ETD1 step contracts.

    .. math:: \mathrm{Lip}_P \le e^{-ch} + (1 - e^{-ch}) L_P / c < 1, \quad h > 0
    """
    decay, slope = facts.decay, facts.slopes.lyapunov
    numbers: dict[str, Any] = {"decay": decay, "lipschitz": slope}
    what = "That every step contracts in the norm of P is not proved"
    if not facts.is_etd1:
        return unknown(what, "the theorem is one of ETD1 steps", **numbers)
    if facts.slopes.radius is not None:
        reason = "f is bounded in slope inside a ball only"
        return unknown(what, reason, **numbers)
    if slope >= decay:
        reason = f"L_P = {slope:.3g} is not below c = {decay:.3g} 1/time"
        return unknown(what, reason, **numbers)
    gaps = _gaps(facts, slope / decay)
    return claim(
        True,
        "Every step, of any length, brings two rollouts together in the norm of P, by "
        f"at least {_percent(gaps[1])} in the model's longest step.",
        (*facts.within, _SAME, EXACT),
        is_vacuous=_is_vacuous(facts, decay - slope),
        **numbers,
        gap_shortest_step=gaps[0],
        gap_longest_step=gaps[1],
    )


def relaxation_contraction(facts: Facts) -> Certificate:
    r"""With real rates and :math:`L_\infty(g) < 1` every sequence of steps contracts.

    .. math:: \mathrm{Lip}_\infty \le 1 - (1 - L_\infty)(1 - e^{-r_{min} h})

    in the largest component, or in the largest of ``|z_i| / w_i`` with the Perron
    vector ``w`` of the bounds on the entries of g's Jacobian.
    """
    what = "That every sequence of steps contracts in the largest component"
    found = _target_slope(facts)
    if found is None:
        return unknown(f"{what} is not proved", _why_not_relaxing(facts))
    slope, weights = found
    if slope >= 1:
        reason = f"the target g is Lipschitz with {slope:.3g}, not below 1"
        return unknown(f"{what} is not proved", reason, target_lipschitz=slope)
    gaps = _gaps(facts, slope)
    return claim(
        True,
        "Every sequence of steps brings all rollouts together in the "
        f"{_which(weights)} "
        f"component, by at least {_percent(gaps[1])} in the model's longest step; "
        "there is one equilibrium for each value of parameters and controls.",
        (*facts.within, _SAME, EXACT),
        is_vacuous=_is_vacuous(facts, facts.decay * (1 - slope)),
        target_lipschitz=slope,
        weights=weights,
        gap_shortest_step=gaps[0],
        gap_longest_step=gaps[1],
    )


def relaxation_contraction_fixed_step(facts: Facts) -> Certificate:
    r"""With real rates and :math:`L = L_2(g) < 1` steps of one length contract.

    .. math:: |d_+|_D^2 \le |d|_D^2 - (1 - L^2) |d|_2^2, \quad
       |d|_D^2 = d^T (I - e^{hA})^{-1} d
    """
    what = "That steps of one length contract in a weighted Euclidean norm"
    slope = facts.slopes.target
    if _target_slope(facts) is None or slope is None:
        return unknown(f"{what} is not proved", _why_not_relaxing(facts))
    if slope >= 1:
        reason = f"the target g is Lipschitz with {slope:.3g}, not below 1"
        return unknown(f"{what} is not proved", reason, target_lipschitz=slope)
    least = -math.expm1(-facts.decay * facts.shortest)
    gap = -math.expm1(0.5 * math.log1p(-(1 - slope**2) * least))
    return claim(
        True,
        "Steps of one length, whichever it is, bring two rollouts together in a "
        f"weighted Euclidean norm, by at least {_percent(gap)} in the model's shortest "
        "step.",
        (*facts.within, _SAME, "all steps have the same length", EXACT),
        is_vacuous=_is_vacuous(facts, facts.decay * (1 - slope**2) / 2),
        target_lipschitz=slope,
        gap_shortest_step=gap,
    )


def _gaps(facts: Facts, ratio: float) -> list[float]:
    """``1 - Lip`` of the shortest and the longest step, ``(1 - ratio)(1 - e^-ch)``."""
    steps = (facts.shortest, facts.longest)
    return [(1 - ratio) * -math.expm1(-facts.decay * step) for step in steps]


def _is_vacuous(facts: Facts, rate: float) -> bool:
    """Whether distances hardly shrink at a rate, however long a rollout may be."""
    return says_nothing(1.0, rate * facts.surrogate.signature.domain.end)


def _which(weights: Matrix) -> str:
    return "largest" if (weights == 1).all() else "largest weighted"


def _percent(gap: float) -> str:
    return f"{100 * gap:.2g} %"


def _target_slope(facts: Facts) -> tuple[float, Matrix] | None:
    """``Lip(g)`` in the largest ``|z_i| / w_i``, and w; None unless it matters.

    It matters where f is in relaxation form with real, decaying modes. The weights are
    1 if that suffices, else the Perron vector, which gives the smallest bound.
    """
    entries = facts.slopes.entries
    if not facts.dynamics.nonlinear.is_relaxation or entries is None:
        return None
    if facts.modes is None or facts.modes.pairs or facts.decay <= 0:
        return None
    ones = np.ones(len(entries))
    plain = float(entries.sum(axis=1).max())
    # A little of everything, so that the vector is positive.
    mixed = entries + 1e-9 * max(plain, 1e-300)
    values, vectors = map(np.asarray, np.linalg.eig(mixed))
    weights = np.abs(vectors[:, np.real(values).argmax()])
    if plain < 1 or not weights.min() > 0:
        return plain, ones
    weights = weights / weights.max()
    weighted = float((entries @ weights / weights).max())
    # Where neither is below 1 the plain one is what people understand.
    return (weighted, weights) if weighted < 1 else (plain, ones)


def _why_not_relaxing(facts: Facts) -> str:
    if not facts.dynamics.nonlinear.is_relaxation:
        return "the nonlinear operator is not in relaxation form"
    return "the linear operator has modes that are not real and decoupled"


def _best_basis(facts: Facts) -> tuple[tuple[str, float, float], float | None]:
    """Name, condition and delta of the best basis; the condition of eigenvectors.

    The best is that with the largest ``delta / cond(T)``; the condition is None where
    the eigenvectors are defective up to rounding.
    """
    if facts.modes is not None:
        return ("eigenvectors", 1.0, facts.decay), 1.0
    found = [("factor of P", condition(facts.transform), facts.decay)]
    own = None
    for name, basis in bases(facts.matrix):
        cond = condition(basis)
        if cond > _DEFECTIVE:
            continue
        inner: Any = np.linalg.solve(basis, facts.matrix @ basis)
        error = 1e-15 * len(inner) * cond * float(np.linalg.norm(inner))
        found.append((name, cond, -(log_norm(inner) + error)))
        own = cond if name == "eigenvectors" else own
    return max(found, key=lambda each: each[2] / each[1]), own
