"""The command line's client: it says when an answer is long in coming."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from spnode_client.calls import Call, Lost, Operation, Pause, Reply, T
from spnode_client.client import Client

SILENT_S = 5.0
"""So long nobody is told that nothing comes."""


class WaitingClient(Client):
    """A client that tells, once, that it waits for an answer.

    Args:
        url: Address of the service.
        key: API key, or None.
        timeout_s: How long an answer may take to begin.
        says: Told the address, in a thread of its own.
    """

    def __init__(
        self,
        url: str,
        key: str | None,
        *,
        timeout_s: float,
        says: Callable[[str], None],
    ) -> None:
        super().__init__(url, key, timeout_s=timeout_s)
        self._says = says
        self._has_said = False
        self._moved_at = 0.0

    def run(self, operation: Operation[T]) -> T:
        """Run one operation."""
        return super().run(self._watched(operation))

    def _watched(self, operation: Operation[T]) -> Operation[T]:
        outcome: Reply | Lost | None = None
        is_lost = False  # tries that had no answer are one silence
        while True:
            try:
                wanted = operation.send(outcome)
            except StopIteration as end:
                return end.value
            if isinstance(wanted, Pause):
                outcome = yield wanted
                continue
            if not is_lost:
                self._moved_at = time.monotonic()
            with self._watching(wanted):
                outcome = yield wanted
            is_lost = isinstance(outcome, Lost)

    @contextlib.contextmanager
    def _watching(self, call: Call) -> Iterator[None]:
        """Say so where nothing moves for long; who asks the service to wait, waits."""
        silent_s = SILENT_S + float(call.query.get("wait", 0))
        tell, is_over = self.transport.on_bytes, threading.Event()

        def moved(done: int, total: int | None) -> None:
            self._moved_at = time.monotonic()
            if tell is not None:
                tell(done, total)

        self.transport.on_bytes = moved
        watch = (is_over, silent_s)
        threading.Thread(target=self._watch, args=watch, daemon=True).start()
        try:
            yield
        finally:
            is_over.set()
            self.transport.on_bytes = tell

    def _watch(self, is_over: threading.Event, silent_s: float) -> None:
        while not self._has_said:
            left = self._moved_at + silent_s - time.monotonic()
            if left <= 0:
                self._has_said = True
                self._says(self.url)
            elif is_over.wait(left):
                return
