"""What an engine counts."""

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
