"""What a version must show before it may be ``champion``.

Its held-out errors exist and are finite, and it has a certificate. A certificate whose
claim does not hold is a warning: an unstable linear part or an unknown box can be right
for the system that was learned.
"""

import math
from typing import Any

HELD_OUT = ("test", "validation")


def failures(evaluation: dict[str, Any], certificate: dict[str, Any]) -> list[str]:
    """Return why a version may not be champion, a sentence each; empty: it may."""
    found = []
    parts = [part for part in HELD_OUT if evaluation.get(part)]
    if not parts:
        found.append("it has no evaluation on held-out trajectories")
    for part in parts:
        error = evaluation[part].get("scaled_mse")
        if not isinstance(error, int | float) or not math.isfinite(error):
            found.append(f"its scaled mean squared error on {part} data is {error!r}")
    if not certificate:
        found.append("it has no certificate")
    return found


def warnings(certificate: dict[str, Any]) -> list[str]:
    """Return the statements of the certificates that do not hold."""
    return [
        str(each.get("statement", name))
        for name, each in certificate.items()
        if isinstance(each, dict) and each.get("holds") is False
    ]
