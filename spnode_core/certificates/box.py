"""The box that no latent component ever leaves, for any sequence of steps."""

import numpy as np
from numpy.typing import NDArray

from spnode_core.certificates.claims import (
    EXACT,
    Certificate,
    claim,
    in_words,
    says_nothing,
    says_nothing_each,
    unknown,
)
from spnode_core.certificates.domain import encoder_bound, state_bounds
from spnode_core.certificates.facts import Facts, Modes
from spnode_core.certificates.norms import Matrix

_MOST_NAMED = 5


def invariant_box(facts: Facts) -> Certificate:
    r"""A box around 0 that no rollout leaves, and what it means for the states.

    With :math:`f = -A g`, real rates and :math:`|g_i| \le G_i`, every ETD1 step makes
    :math:`z_i` a convex combination of itself and :math:`g_i`, so that
    :math:`|z_i(t)| \le \max(|z_i(0)|, G_i)`. Likewise with :math:`|f_i| \le F_i` it is
    :math:`F_i / r_i`; for an oscillating pair the modulus of the pair, with
    :math:`|\lambda| G / r` or :math:`F / r`.
    """
    surrogate = facts.surrogate
    target = _target(facts)
    if isinstance(target, str):
        return unknown("No invariant box is known", target)
    assert facts.modes is not None
    start = _by_mode(encoder_bound(surrogate), facts.modes)
    box = np.maximum(target, start)
    largest, size = float(box.max()), max(float(start.max()), 1.0)
    names, domain = surrogate.signature.states, surrogate.signature.domain
    low, high = state_bounds(surrogate, box)
    reach = np.maximum(np.abs(domain.lower), np.abs(domain.upper))
    useless = says_nothing_each(np.maximum(np.abs(low), np.abs(high)), reach)
    return claim(
        True,
        "For every initial state in the training box and every sequence of steps, "
        "however long, each latent variable stays within its bound (the largest is "
        f"{in_words(largest, size)}), so the states stay bounded for all time"
        f"{_of_no_use(names, useless)}.",
        (
            "the initial state, its conserved sums and the parameters lie in the "
            "training box",
            EXACT,
        ),
        is_vacuous=says_nothing(largest, size) or bool(useless.all()),
        target_bound=target,
        latent_bound=box,
        states={
            name: [least, most]
            for name, least, most in zip(
                names, low.tolist(), high.tolist(), strict=True
            )
        },
    )


def _of_no_use(names: tuple[str, ...], useless: NDArray[np.bool_]) -> str:
    """Which states have bounds that are true and say nothing, in words."""
    found = [name for name, each in zip(names, useless, strict=True) if each]
    if not found:
        return ""
    some = ", ".join(found[:_MOST_NAMED])
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return f"; the bounds in physical units of {some}{more} are vacuous"


def _target(facts: Facts) -> Matrix | str:
    """What each component is drawn into at last, or why that is not known."""
    modes, values = facts.modes, facts.slopes.values
    if modes is None:
        return "the linear operator has modes that are not decoupled"
    if facts.decay <= 0:
        return "the linear operator is shifted to allow growth"
    if values is None:
        return "the nonlinear operator is not bounded"
    if not facts.is_etd1:
        return "it is proved for steps of ETD1 only"
    values = _by_mode(values, modes)
    if not facts.dynamics.nonlinear.is_relaxation:
        return values / modes.decay
    # Real modes: exactly 1, also where the rate depends on parameters.
    factor = np.ones(len(values))
    slow = modes.decay[modes.real :]
    factor[modes.real :] = np.hypot(slow, modes.frequency[modes.real :]) / slow
    return factor * values


def _by_mode(bound: Matrix, modes: Modes) -> Matrix:
    """The same for real modes; both components of a pair get that of its modulus."""
    pairs = bound[modes.real :].reshape(-1, 2)
    moduli = np.repeat(np.hypot(pairs[:, 0], pairs[:, 1]), 2)
    return np.concatenate([bound[: modes.real], moduli])
