"""What a version must show before it may be ``champion``.

Its held-out errors exist and are finite, and it has a certificate. Three claims that do
not hold are warnings: an unstable linear part, no bound on the states, and steps that
matter can be right for the system that was learned, but whoever uses the version should
know. The others say how much is proved; that they fail is usual and no warning.
"""

import sys
from typing import Any

HELD_OUT = ("test", "validation")
WARNED = ("spectral_abscissa", "invariant_box", "step_refinement")
"""Certificates whose failure is a warning; a ball does instead of the box."""


def finite(value: Any) -> float | None:
    """A finite number; None of all else, for an imported archive may say anything."""
    if not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        return None
    return float(value)


def failures(evaluation: dict[str, Any], certificate: dict[str, Any]) -> list[str]:
    """Return why a version may not be champion, a sentence each; empty: it may."""
    found = []
    parts = [part for part in HELD_OUT if evaluation.get(part)]
    if not parts:
        found.append("it has no evaluation on held-out trajectories")
    for part in parts:
        error = evaluation[part].get("scaled_mse")
        if finite(error) is None:
            found.append(f"its scaled mean squared error on {part} data is {error!r}")
    if not certificate:
        found.append("it has no certificate")
    return found


def warnings(certificate: dict[str, Any]) -> list[str]:
    """Return the statements of those in ``WARNED`` that do not hold."""
    claims = {
        name: claim for name, claim in certificate.items() if isinstance(claim, dict)
    }
    is_bounded = claims.get("invariant_ball", {}).get("holds") is True
    warned = [n for n in WARNED if not (n == "invariant_box" and is_bounded)]
    return [
        str(claims[name].get("statement", name))
        for name in warned
        if claims.get(name, {}).get("holds") is False
    ]
