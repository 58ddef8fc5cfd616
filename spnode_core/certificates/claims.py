"""What a certificate looks like: whether it holds, a sentence, and what it rests on."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Certificate = dict[str, Any]

EXACT = "real-number arithmetic; rounding is not accounted for"
"""The assumption of what is proved of rollouts."""

# Bounds this many times what they bound say nothing that anybody could use.
_SAYS_NOTHING = 1e6


def claim(
    holds: bool,
    statement: str,
    assumptions: tuple[str, ...] = (),
    *,
    is_vacuous: bool = False,
    **numbers: Any,
) -> Certificate:
    """A certificate, fit for JSON.

    Args:
        holds: Whether the claim is proved under its assumptions.
        statement: It, or why it is not proved, in one plain sentence.
        assumptions: What it rests on besides the parameters of the model.
        is_vacuous: Whether its bounds are true, and too large to say anything.
        **numbers: Finite numbers, lists of them, or None.
    """
    return {
        "holds": bool(holds),
        "is_vacuous": bool(is_vacuous),
        **{name: _finite(number) for name, number in numbers.items()},
        "assumptions": list(assumptions),
        "statement": statement,
    }


def unknown(what: str, reason: str, **numbers: Any) -> Certificate:
    """A claim that cannot be made, and why."""
    return claim(False, f"{what}: {reason}.", **numbers)


def says_nothing(bound: float, size: float = 1.0) -> bool:
    """Whether a bound is so far above what it bounds that it says nothing."""
    return not bound <= _SAYS_NOTHING * size


def says_nothing_each(bounds: Values, sizes: Values) -> NDArray[np.bool_]:
    """The same for each of several; of what is always 0 no bound is too large."""
    return np.asarray(~(bounds <= _SAYS_NOTHING * sizes) & (sizes > 0))


def in_words(bound: float, size: float = 1.0) -> str:
    """A bound with three digits, called vacuous where it says nothing."""
    if not says_nothing(bound, size):
        return f"{bound:.3g}"
    return f"10^{log10(bound):.3g}, which is vacuous"


def log10(value: float) -> float:
    """Logarithm to base 10, of the smallest and largest float64 beyond its range."""
    return math.log10(min(max(value, 5e-324), 1.7976931348623157e308))


def _finite(number: Any) -> Any:
    if hasattr(number, "tolist"):
        return _finite(number.tolist())
    if isinstance(number, list | tuple):
        return [_finite(each) for each in number]
    if isinstance(number, dict):
        return {str(key): _finite(each) for key, each in number.items()}
    if isinstance(number, float) and not math.isfinite(number):
        return None
    return number
