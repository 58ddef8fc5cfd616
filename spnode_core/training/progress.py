"""What a run tells while it goes on, and how it is asked to stop."""

import dataclasses
import math
import sys
import time
from collections.abc import Callable
from typing import Literal

from spnode_core.errors import SpnodeError

StageName = Literal[
    "data", "infer", "compile", "pretrain", "optimise", "polish", "evaluate"
]
_SHORTEST_INTERVAL_S = 0.25


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a run is.

    Args:
        stage: What it does.
        part: Which of several stages of one name, as the horizons of a curriculum.
        iteration: Iterations done in this stage.
        iterations: Iterations that the stage will take at most.
        loss: Mean training loss since the last validation, None before the first.
        validation_loss: The last one, None before the first.
        seconds: Since the start of the run, interruptions left out.
        remaining_s: Estimate of what is left, None where there is no telling.
        message: One sentence for people.
    """

    stage: StageName
    part: int = 0
    iteration: int = 0
    iterations: int = 0
    loss: float | None = None
    validation_loss: float | None = None
    seconds: float = 0.0
    remaining_s: float | None = None
    message: str = ""


def progress_line() -> Callable[[Progress], None] | None:
    """What shows progress as one line on stderr; None where that is no terminal."""
    is_seen = sys.stderr.isatty() or "ipykernel" in sys.modules
    return _show if is_seen else None


def _show(progress: Progress) -> None:
    parts = [progress.message or progress.stage]
    if progress.validation_loss is not None:
        parts.append(f"validation loss {progress.validation_loss:.2e}")
    if progress.remaining_s is not None:
        parts.append(f"{progress.remaining_s:.0f} s left")
    # Back to the start of the line, and what stood there is wiped out.
    sys.stderr.write("\r\x1b[K" + " · ".join(parts))
    sys.stderr.write("\n" if progress.stage == "evaluate" else "")
    sys.stderr.flush()


class Stopped(SpnodeError):
    """A run ended on request; its checkpoint, where it has one, goes on from there."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"training was stopped: {reason}")

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild from the reason."""
        return (Stopped, (self.reason,))


class Reporter:
    """Passes progress on, a few times a second at most, and knows the time.

    Args:
        on_progress: Called with each progress that is passed on.
        should_stop: Returns a reason to stop, or None.
        max_seconds: Wall time that the run may take, interruptions left out.
    """

    def __init__(
        self,
        on_progress: Callable[[Progress], None] | None = None,
        should_stop: Callable[[], str | None] | None = None,
        max_seconds: float | None = None,
    ) -> None:
        self._on_progress = on_progress
        self._should_stop = should_stop
        self._max_seconds = max_seconds
        self._started = time.monotonic()
        self._reported = -1e9
        self._stage: str | None = None
        self.earlier_s = 0.0

    @property
    def seconds(self) -> float:
        """Seconds of this run, those before an interruption included."""
        return self.earlier_s + time.monotonic() - self._started

    @property
    def used(self) -> float:
        """Part of its wall time that the run has taken; 0 where there is no limit."""
        return self.seconds / self._max_seconds if self._max_seconds else 0.0

    def left_s(self, share: float = 1.0) -> float:
        """Seconds until a share of the wall time is taken; infinite without a limit."""
        if self._max_seconds is None:
            return math.inf
        return max(share * self._max_seconds - self.seconds, 0.0)

    @property
    def is_out_of_time(self) -> bool:
        """Whether the run has taken all of its wall time."""
        return self._max_seconds is not None and self.seconds >= self._max_seconds

    def stop_reason(self) -> str | None:
        """Why the caller wants the run to stop, if so."""
        return self._should_stop() if self._should_stop else None

    def report(self, progress: Progress) -> None:
        """Pass a progress on, unless the last one of its stage is too recent."""
        if self._on_progress is None:
            return
        now = time.monotonic()
        is_same_stage = progress.stage == self._stage
        if is_same_stage and now - self._reported < _SHORTEST_INTERVAL_S:
            return
        self._stage, self._reported = progress.stage, now
        self._on_progress(dataclasses.replace(progress, seconds=self.seconds))
