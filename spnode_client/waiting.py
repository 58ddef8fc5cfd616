"""The command line's client: it says when an answer is long in coming."""

import threading
import time
from collections.abc import Callable

from spnode_client.calls import Call, Lost, Operation, Reply, T
from spnode_client.client import Client
from spnode_client.transport import Transport

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

    # The command line waits by itself, and says so.
    patience_s = 0.0

    def __init__(
        self,
        url: str,
        key: str | None,
        *,
        timeout_s: float,
        says: Callable[[str], None],
    ) -> None:
        self._says = says
        super().__init__(url, key, timeout_s=timeout_s)

    def _transport(self, key: str | None, timeout_s: float) -> Transport:
        return _WaitingTransport(self.url, key, timeout_s, self._says)


class _WaitingTransport(Transport):
    """Says so where nothing moves for long; who asks the service to wait, waits."""

    def __init__(
        self, url: str, key: str | None, timeout_s: float, says: Callable[[str], None]
    ) -> None:
        super().__init__(url, key, timeout_s)
        self._url, self._says = url, says
        self._has_said = False
        self._moved_at = 0.0
        self._was_lost = False

    def run(self, operation: Operation[T]) -> T:
        """Run an operation to its result."""
        self._was_lost = False
        return super().run(operation)

    def _exchange(self, call: Call) -> Reply | Lost:
        # Tries that had no answer are one silence.
        if not self._was_lost:
            self._moved_at = time.monotonic()
        is_over = threading.Event()
        watch = (is_over, SILENT_S + float(call.query.get("wait", 0)))
        threading.Thread(target=self._watch, args=watch, daemon=True).start()
        try:
            outcome = super()._exchange(call)
        finally:
            is_over.set()
        self._was_lost = isinstance(outcome, Lost)
        return outcome

    def _tell(self, done: int, total: int | None) -> None:
        self._moved_at = time.monotonic()
        super()._tell(done, total)

    def _watch(self, is_over: threading.Event, silent_s: float) -> None:
        while not self._has_said:
            left = self._moved_at + silent_s - time.monotonic()
            if left <= 0:
                self._has_said = True
                self._says(self._url)
            elif is_over.wait(left):
                return
