"""What is proved about a trained surrogate, each with its assumptions in words.

A certificate says ``holds: false`` where its condition fails and says why; it never
claims more than follows from the parameters. One with ``is_vacuous: true`` is true and
of no use. Formulas and proofs: ``docs/certificates.md``.
"""

from typing import TYPE_CHECKING

from spnode_core.certificates import contraction, stability
from spnode_core.certificates.ball import invariant_ball
from spnode_core.certificates.box import invariant_box
from spnode_core.certificates.claims import Certificate, unknown
from spnode_core.certificates.facts import facts_of
from spnode_core.certificates.lipschitz import lipschitz
from spnode_core.linear.modal import ModalOperator
from spnode_core.linear.symbol import SymbolOperator
from spnode_core.spec import LARGEST_CERTIFIED

if TYPE_CHECKING:
    from spnode_core.surrogate import Surrogate

_NAMES = (
    "log_norm",
    "lyapunov",
    "transient_bound",
    "lipschitz",
    "invariant_box",
    "invariant_ball",
    "fixed_point",
    "contraction",
    "step_contraction",
    "relaxation_contraction",
    "relaxation_contraction_fixed_step",
)

CONTRACTING = ("step_contraction", "relaxation_contraction")
"""Each of these proves that the steps of a model bring all rollouts together."""


def certify(surrogate: "Surrogate") -> dict[str, object]:
    """Every certificate that follows from a surrogate's parameters, JSON-able.

    Each has ``holds``, ``is_vacuous``, ``statement`` (one plain sentence),
    ``assumptions`` and its numbers.

    Args:
        surrogate: A trained model.
    """
    facts = facts_of(surrogate)
    if facts is None:
        return _of_a_large_model(surrogate)
    return {
        "spectral_abscissa": stability.spectral_abscissa(surrogate),
        "log_norm": stability.log_norm(facts),
        "lyapunov": stability.lyapunov(facts),
        "transient_bound": stability.transient_bound(facts),
        "lipschitz": lipschitz(surrogate, facts.slopes),
        "invariant_box": invariant_box(facts),
        "invariant_ball": invariant_ball(facts),
        "fixed_point": contraction.fixed_point(facts),
        "contraction": contraction.contraction(facts),
        "step_contraction": contraction.step_contraction(facts),
        "relaxation_contraction": contraction.relaxation_contraction(facts),
        "relaxation_contraction_fixed_step": (
            contraction.relaxation_contraction_fixed_step(facts)
        ),
    }


def contracts(certificate: dict[str, object]) -> bool:
    """Whether it is proved that the steps of a model bring all rollouts together.

    So far that it can be seen: a claim that is vacuous does not count.
    """
    claims = (certificate[name] for name in CONTRACTING)
    return any(
        isinstance(each, dict) and each["holds"] and not each["is_vacuous"]
        for each in claims
    )


def _of_a_large_model(surrogate: "Surrogate") -> dict[str, object]:
    """What does not need the singular values of large matrices."""
    linear = surrogate.dynamics.linear
    why = f"it takes dense matrices, up to {LARGEST_CERTIFIED} latent variables"
    found: dict[str, object] = {}
    if isinstance(linear, ModalOperator | SymbolOperator):
        found["spectral_abscissa"] = stability.spectral_abscissa(surrogate)
    else:
        found["spectral_abscissa"] = unknown("The eigenvalues of A are not known", why)
    others: dict[str, Certificate] = {
        name: unknown(f"The certificate {name} is not computed", why) for name in _NAMES
    }
    return {**found, **others}
