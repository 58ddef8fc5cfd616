"""The memory of this process: what is looked for in it, and what glibc keeps of it.

A thread that starts gets a heap of its own: a process that mostly waits then has much
memory that it does not need. Elsewhere, where there are no such functions, nothing
happens.
"""

import ctypes
import gc
from collections.abc import Callable

_M_ARENA_MAX = -8


def collect_rarely() -> None:
    """Have Python look for cycles of garbage rarely; before anything is imported.

    Nothing that modules make while they are imported is garbage: looking for some
    takes 0.3 s of a start. Later, too, requests leave little.
    """
    gc.set_threshold(50_000, 20, 20)


def for_waiting() -> None:
    """Have all threads share two heaps; before they start."""
    if mallopt := _function("mallopt"):
        mallopt(_M_ARENA_MAX, 2)


def give_back() -> None:
    """Return to the system what lies free."""
    if trim := _function("malloc_trim"):
        trim(0)


def _function(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None)
