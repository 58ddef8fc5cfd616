"""The C heap of this process: what glibc keeps of what was let go of.

A thread that starts gets a heap of its own, and large blocks go back to the system at
once: a process that mostly waits then has much memory that it does not need, and one
that computes large answers takes the same pages anew for each. To be called before
threads start. Elsewhere, where there are no such functions, nothing happens.
"""

import ctypes
from collections.abc import Callable

from services.settings import MIB

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
# The largest that glibc takes.
_LARGE_BYTES = 32 * MIB
_KEPT_BYTES = 256 * MIB


def for_waiting() -> None:
    """Have all threads share two heaps."""
    _set(_M_ARENA_MAX, 2)


def for_computing() -> None:
    """Have all threads share one heap, which keeps blocks of many megabytes.

    Answers of 26 MB took a quarter of the time: most of it went into new pages.
    """
    _set(_M_ARENA_MAX, 1)
    _set(_M_MMAP_THRESHOLD, _LARGE_BYTES)
    _set(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def give_back() -> None:
    """Return to the system what lies free."""
    if trim := _function("malloc_trim"):
        trim(0)


def _set(option: int, value: int) -> None:
    if mallopt := _function("mallopt"):
        mallopt(option, value)


def _function(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None)
