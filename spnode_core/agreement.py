"""Whether a dataset has what a surrogate takes: the same names, in the same order.

Nothing here imports JAX, so that a job is refused before it is queued.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from spnode_core.spec import Signature

_MOST_NAMES = 8


class Difference(NamedTuple):
    """The first thing in which a dataset is not what a surrogate takes."""

    what: str
    """``states``, ``parameters``, ``controls``, ``units`` or ``time_unit``."""
    found: str
    expected: str


def difference(
    signature: Signature,
    *,
    states: Sequence[str],
    parameters: Sequence[str],
    controls: Sequence[str],
    units: Sequence[str] = (),
    time_unit: str = "",
) -> Difference | None:
    """The first difference between a surrogate's signature and a dataset.

    Args:
        signature: What the surrogate takes.
        states: Names of the dataset's states.
        parameters: Names of its parameters.
        controls: Names of its controls.
        units: Units of its states; none where they are not known.
        time_unit: Its unit of time; empty where it is not known.

    Returns:
        None where they agree; a unit that one of both does not tell is no difference.
    """
    pairs = (
        ("states", states, signature.states),
        ("parameters", parameters, signature.parameters),
        ("controls", controls, signature.controls),
    )
    for what, found, expected in pairs:
        if tuple(found) != tuple(expected):
            return Difference(what, _listed(found), _listed(expected))
    for state, found, expected in zip(states, units, signature.units, strict=False):
        if found and expected and found != expected:
            pair = (f"{unit!r} as the unit of {state}" for unit in (found, expected))
            return Difference("units", *pair)
    if time_unit and signature.time_unit and time_unit != signature.time_unit:
        return Difference("time_unit", repr(time_unit), repr(signature.time_unit))
    return None


def _listed(names: Sequence[str]) -> str:
    """Names in words, those beyond the first few counted."""
    return ", ".join(_shortened(names)) or "none"


def _shortened(names: Sequence[str]) -> Iterator[str]:
    yield from names[:_MOST_NAMES]
    if len(names) > _MOST_NAMES:
        yield f"… ({len(names)} of them)"
