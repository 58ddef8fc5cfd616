"""Calls that ask the store, left alone where their job must end meanwhile.

A store that hangs is asked again for three minutes, and nothing interrupts that: the
call goes on in its thread, and its worker does not wait for it. Whatever it does later
changes nothing: contents that nobody refers to are swept, and what it writes to the
database names a claim that has ended.
"""

import contextlib
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from services.errors import LeaseLost

T = TypeVar("T")
_LOOK_S = 0.2


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


def _into(done: Future[T], call: Callable[[], T]) -> None:
    try:
        done.set_result(call())
    except BaseException as error:  # the boundary of the thread: raised by who waits
        done.set_exception(error)
