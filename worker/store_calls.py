"""Calls that ask the store, left alone where their job must end meanwhile.

A store that hangs is asked again for three minutes, and nothing interrupts that: the
call goes on in its thread, and its worker does not wait for it. Whatever it does later
changes nothing: contents that nobody refers to are swept, and what it writes to the
database names a claim that has ended.
"""

import contextlib
import contextvars
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from services.errors import LeaseLost, Unavailable

log = logging.getLogger("spnode.worker")

T = TypeVar("T")
_LOOK_S = 0.2
_AGAIN_FOR_S, _AGAIN_EVERY_S = 300.0, 1.0


def unless_ended(check: Callable[[], None], call: Callable[[], T]) -> T:
    """Call something, and leave it where the job must end before that.

    Who has lost the lease waits for it: the call itself may have ended the job, and
    else what it writes is refused.

    Args:
        check: Raises where the job must end: ``Keeper.check``.
        call: What may take long.

    Raises:
        MustEnd: The caller has cancelled, or time is up.
    """
    done: Future[T] = Future()
    run = contextvars.copy_context().run
    thread = threading.Thread(
        target=_into, args=(done, lambda: run(call)), name="store", daemon=True
    )
    thread.start()
    while thread.is_alive():
        thread.join(_LOOK_S)
        if thread.is_alive():
            with contextlib.suppress(LeaseLost):
                check()
    return done.result()


def until_answered(
    check: Callable[[], None], call: Callable[[], T], stopping: threading.Event
) -> T:
    """Call what keeps a result, again for minutes while database or store is away.

    Given up, the next attempt would compute anew what was ready here.

    Args:
        check: Raises where the job must end, or is another's: ``Keeper.check``.
        call: What may be called again whatever became of it before.
        stopping: Whether the worker stops, which waits for nobody.

    Raises:
        LeaseLost: The job is another's.
        MustEnd: The caller has cancelled, or time is up.
        Unavailable: It was away for too long.
    """
    until = time.monotonic() + _AGAIN_FOR_S
    while True:
        try:
            return unless_ended(check, call)
        except Unavailable as error:
            if time.monotonic() > until or stopping.wait(_AGAIN_EVERY_S):
                raise
            log.warning("not kept yet: %s", error)
        check()


def _into(done: Future[T], call: Callable[[], T]) -> None:
    try:
        done.set_result(call())
    except BaseException as error:  # the boundary of the thread: raised by who waits
        done.set_exception(error)
