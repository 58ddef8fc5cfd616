"""The memory of this process: what is looked for in it, and what glibc keeps of it.

A thread that starts gets a heap of its own: a process that mostly waits then has much
memory that it does not need. Large blocks go back to the system at once: one that
computes takes their pages anew each time. Elsewhere, where there are no such functions,
nothing happens.
"""

import ctypes
import gc
from collections.abc import Callable

_MIB = 2**20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
# The largest that glibc takes.
_LARGE_BYTES = 32 * _MIB
_KEPT_BYTES = 128 * _MIB


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


def for_computing() -> None:
    """Have heaps keep what lies free at their end, up to 128 MiB, also large blocks.

    Those of threads are 64 MiB at most. Gradients of 512 rows took a third more CPU
    time in new pages. One heap for all threads would make batches beside each other
    wait; XLA's own blocks beyond 32 MiB are new each time all the same.
    """
    if mallopt := _function("mallopt"):
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def give_back() -> None:
    """Return to the system what lies free."""
    if trim := _function("malloc_trim"):
        trim(0)


def _function(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None)
