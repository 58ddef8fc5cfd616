"""What engines and batchers count."""

import threading
from dataclasses import dataclass, field


@dataclass
class Counters:
    """What an engine has done since it began."""

    batches: int = 0
    rows: int = 0
    compilations: int = 0
    """Programs that were met for the first time, warm-up included."""
    compilations_on_request: int = 0
    """Those of them that a batch waited for."""
    compile_seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def begun(self, rows: int) -> None:
        """A batch of so many rows began, in one of the threads that compute."""
        with self._lock:
            self.batches += 1
            self.rows += rows


@dataclass
class BatcherCounters:
    """What a batcher has done since it began."""

    requests: int = 0
    batches: int = 0
    rows: int = 0
    """Rows that went into batches."""
    expired: int = 0
    cancelled: int = 0
    refused: int = 0
    waited_seconds: float = 0.0
    """Sum over requests of the time from coming to the first batch."""
    longest_wait_seconds: float = 0.0
