"""The ball that every rollout enters and none leaves."""

import numpy as np

from spnode_core.certificates.claims import (
    EXACT,
    Certificate,
    claim,
    in_words,
    says_nothing,
    unknown,
)
from spnode_core.certificates.domain import encoder_bound
from spnode_core.certificates.facts import Facts
from spnode_core.certificates.norms import spectral_norm


def invariant_ball(facts: Facts) -> Certificate:
    r"""The ball :math:`|z|_P \le F / c`, ``|f|_P <= F``, ``c = -mu_P(A) > 0``.

    An ETD1 step gives :math:`|z_+|_P \le e^{-ch} |z|_P + (1 - e^{-ch}) F / c`, so that
    this ball and every larger one is invariant and attracts everything.
    """
    what = "No invariant ball is known"
    if facts.slopes.size is None:
        return unknown(what, "the nonlinear operator is not bounded")
    if facts.decay <= 0:
        return unknown(what, "A decays in no norm that is known")
    if not facts.is_etd1:
        return unknown(what, "it is proved for the exact flow and steps of ETD1 only")
    radius = facts.slopes.size / facts.decay
    start = encoder_bound(facts.surrogate)
    inverse = np.asarray(np.linalg.inv(facts.transform), np.float64)
    euclid = spectral_norm(inverse) * radius
    size = max(float(np.linalg.norm(start)), 1.0)
    return claim(
        True,
        "Every rollout, from any latent state and with any steps, tends to the ball "
        f"|z|_P <= F / c = {radius:.3g}, where |z| <= {in_words(euclid, size)}, and "
        "never leaves it or a larger one again.",
        (
            *facts.within,
            EXACT,
        ),
        is_vacuous=says_nothing(euclid, size),
        radius=radius,
        euclidean_radius=euclid,
        forcing=facts.slopes.size,
        decay=facts.decay,
    )
