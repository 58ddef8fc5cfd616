"""The C heap of this process: glibc keeps for itself much of what Python lets go of.

Elsewhere, where there is no such function, nothing happens.
"""

import ctypes
from collections.abc import Callable

_M_ARENA_MAX = -8
_ARENAS = 2


def keep_few_arenas() -> None:
    """Have threads share two arenas; each that starts later would get one of its own.

    For a process whose threads mostly wait, before it starts them.
    """
    if mallopt := _function("mallopt"):
        mallopt(_M_ARENA_MAX, _ARENAS)


def give_back() -> None:
    """Return to the system what lies free in it."""
    if trim := _function("malloc_trim"):
        trim(0)


def _function(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None)
