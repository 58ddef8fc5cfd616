"""What the callers of a fault run see, counted, and what must never happen."""

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from spnode_client.calls import Call, Lost, Reply
from spnode_client.records import Record
from spnode_client.transport import Transport

PATIENCE_S = 20.0


@dataclass
class Tally:
    """What the callers saw, from several threads.

    Attributes:
        seen: How often: answers, refusals by status, lost connections, submissions.
        wrong: What must never happen, as findings.
    """

    seen: Counter[str] = field(default_factory=Counter)
    wrong: list[Record] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _here: threading.local = field(default_factory=threading.local)

    @property
    def doubtful(self) -> int:
        """How many calls of this thread may have been done without our knowing."""
        return getattr(self._here, "doubtful", 0)

    def doubt(self) -> None:
        """Count a call whose answer was lost, or said that something failed."""
        self._here.doubtful = self.doubtful + 1

    def count(self, what: str) -> None:
        """Count something."""
        with self._lock:
            self.seen[what] += 1

    def complain(self, what: str, **details: Any) -> None:
        """Note a finding."""
        with self._lock:
            self.wrong.append({"what": what, **details})


class CountingTransport(Transport):
    """The client's own transport; what is refused or lost is counted.

    Args:
        url: Address of a gateway.
        key: API key.
        tally: Where it is counted.
    """

    def __init__(self, url: str, key: str, tally: Tally) -> None:
        super().__init__(url, key, PATIENCE_S)
        self._tally = tally

    def _exchange(self, call: Call) -> Reply | Lost:
        outcome = super()._exchange(call)
        if isinstance(outcome, Lost):
            self._tally.doubt()
            self._tally.count("lost connections")
        elif outcome.status >= 500 or outcome.status == 429:
            if outcome.status >= 500:
                self._tally.doubt()
            self._tally.count(f"refusals {outcome.status}")
            if outcome.status == 500:
                told = outcome.content.decode(errors="replace")[:500]
                self._tally.complain("an answer was 500", id=call.path, found=told)
        else:
            self._tally.count("answers")
        return outcome
