"""Pieces of a batch, several at a time: JAX computes in turn what a thread asks for."""

import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def on_threads(one: Callable[[int], T], count: int, at_a_time: int) -> list[T]:
    """``[one(0), ..., one(count - 1)]``, several of them at a time.

    After the first error no more are begun; it is raised when none runs any more.

    Args:
        one: Computes one.
        count: How many there are.
        at_a_time: How many threads compute, the caller's among them.
    """
    waiting = deque(range(count))
    found: dict[int, T] = {}
    errors: list[Exception] = []

    def work() -> None:
        while not errors:
            try:
                number = waiting.popleft()
            except IndexError:
                return
            try:
                found[number] = one(number)
            except Exception as error:  # raised in the caller's thread
                errors.append(error)

    # Whoever ends the process waits for none of them.
    threads = [
        threading.Thread(target=work, name="tiles", daemon=True)
        for _ in range(min(at_a_time, count) - 1)
    ]
    for thread in threads:
        thread.start()
    work()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [found[number] for number in range(count)]
