"""The parent's side of a running child: what it tells, and how it ends.

::

    child ──progress, log──▶ heartbeat (writes events, copies checkpoints)
      │ ──chunk────────────▶ the store, then its row
      │ ──nothing──────────▶ hung: kill the child, the attempt has crashed
      ▲                        │ cancel requested: kill the child within two seconds
      └──stop── worker stops   │ lease lost:       kill the child, write nothing
"""

import contextlib
import functools
import json
import logging
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from services.claims import Claim
from services.errors import Unavailable
from services.job_files import CHECKPOINT
from services.leases import Note
from services.metrics import JOB_DEVICE_BYTES
from services.orphans import CHECKPOINTS
from worker import child
from worker.chunks import ChunkKeeper
from worker.context import Context
from worker.keeper import Keeper
from worker.store_calls import unless_ended, until_answered

log = logging.getLogger("spnode.worker")

_TICK_S = 0.2
_WRITE_S = 1.0
_TERM_S = 1.0
_LEASES_SILENT = 4
# More than saying that one lives takes within an hour.
_SOME_CPU_S = 5.0
_POINT = ("stage", "part", "iteration", "loss", "validation_loss", "seconds")
_ROWS = ("stage", "rows", "rows_per_second", "seconds")


@dataclass(frozen=True)
class Ending:
    """How the child ended.

    ``done``, ``failed``, ``unavailable``, ``stopped`` or ``crashed``.
    """

    type: str
    message: dict[str, Any] = field(default_factory=dict)


class Supervisor:
    """Runs the child of one claim to its end.

    Args:
        context: The worker's services.
        server: Where children start from.
        claim: The job.
        keeper: Renews the claim meanwhile.
        folder: The job's files.
    """

    def __init__(
        self,
        context: Context,
        server: ForkServerContext,
        claim: Claim,
        keeper: Keeper,
        folder: Path,
    ) -> None:
        self.context = context
        self.keeper = keeper
        self.claim = claim
        self.folder = folder
        self.checkpoint = claim.checkpoint
        self._unnoted: tuple[str, int] | None = None
        ours, theirs = server.Pipe()
        self._connection: Connection = ours
        job, settings = claim.job, context.settings
        self._process = server.Process(
            target=child.main,
            args=(theirs, job.request, job.id, folder, settings.checkpoint_seconds),
            name=f"job {job.id}",
            daemon=True,
        )
        self._theirs = theirs
        self._chunks = ChunkKeeper(context, claim, folder)
        self._notes: list[Note] = []
        self._progress: dict[str, Any] | None = None
        self._point: dict[str, Any] | None = None
        self._stage: str | None = None
        self._written = self._copied = self._listened = time.monotonic()
        self._stop_until: float | None = None
        # For how long this process has listened since the child said anything, and
        # anything new: while a worker is frozen or a laptop sleeps, nobody listens.
        self._silent_s = self._stalled_s = self._computed_s = 0.0

    def run(self) -> Ending:
        """Start the child and stay with it.

        Returns:
            How it ended by itself, or when it was told to stop.

        Raises:
            MustEnd: The caller cancelled, or time is up; the child is gone.
            LeaseLost: The job is another's; the child is gone.
        """
        self._process.start()
        self._theirs.close()
        try:
            return self._pump()
        finally:
            self.kill()
            self._connection.close()
            JOB_DEVICE_BYTES.set(0)

    def kill(self) -> None:
        """End the child, at once if it does not end within a second."""
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(_TERM_S)
        if self._process.is_alive():
            self._process.kill()
        self._process.join()

    def flush(self) -> None:
        """Write what the child has told and copy its last checkpoint.

        Raises:
            MustEnd: The caller cancelled, or time is up.
            LeaseLost: The job is another's now, or ended.
        """
        self._copy_checkpoint()
        if self._has_news():
            self._write()

    def _has_news(self) -> bool:
        return bool(self._notes) or not (self._progress is self._point is None)

    def _pump(self) -> Ending:
        while True:
            wait([self._connection, self._process.sentinel], _TICK_S)
            ending = self._receive() or self._hung()
            if ending is not None:
                return ending
            self.keeper.check()
            self._keep_up()
            self._watch_stop()

    def _receive(self) -> Ending | None:
        try:
            while self._connection.poll():
                message = json.loads(self._connection.recv_bytes())
                kind = message.pop("type")
                self._silent_s = 0.0
                if kind == child.ALIVE:
                    self._note_computed(message["cpu_s"])
                    JOB_DEVICE_BYTES.set(message["device_bytes"])
                    continue
                self._stalled_s = 0.0
                if kind == "progress":
                    self._note_progress(message)
                elif kind == "metrics":
                    self._note_point(message["point"])
                elif kind == "log":
                    self._notes.append(Note("log", **_log_fields(message)))
                elif kind == "chunk":
                    self._keep_chunk(message)
                else:
                    return Ending(kind, message)
        except (EOFError, OSError):
            return self._died()
        return None

    def _note_computed(self, seconds: float) -> None:
        """What computes goes on, whether or not it has something to tell."""
        if seconds > self._computed_s + _SOME_CPU_S:
            self._computed_s = seconds
            self._stalled_s = 0.0

    def _hung(self) -> Ending | None:
        """The end of a child that has been silent, or idle, too long."""
        now = time.monotonic()
        listened = min(now - self._listened, 5 * _TICK_S)
        self._listened = now
        self._silent_s += listened
        self._stalled_s += listened
        settings = self.context.settings
        silence, stall = _LEASES_SILENT * settings.lease_seconds, settings.stall_seconds
        if self._silent_s > silence:
            reason = f"the job's process gave no sign of life for {silence:g} s"
        elif self._stalled_s > stall:
            reason = f"the job's process neither told nor computed for {stall:g} s"
        else:
            return None
        return Ending("crashed", {"reason": f"{reason} and was killed"})

    def _died(self) -> Ending:
        self._process.join(_TERM_S)
        code = self._process.exitcode
        how = (
            f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        )
        if self._stop_until is not None:
            return Ending("stopped", {"reason": "the worker stops"})
        reason = f"the job's process died ({how})"
        if code == -9:
            reason += "; was it out of memory?"
        return Ending("crashed", {"reason": reason})

    def _note_progress(self, progress: dict[str, Any]) -> None:
        seconds, remaining = progress.get("seconds"), progress.get("remaining_s")
        if seconds is not None and remaining is not None:
            progress["fraction"] = seconds / max(seconds + remaining, 1e-9)
        stage = str(progress["stage"])
        if stage != self._stage:
            self._stage = stage
            message = progress.get("message") or stage
            self._notes.append(Note("log", message, {"stage": stage}))
        self._progress = progress
        if progress.get("loss") is not None:
            self._note_point(progress)

    def _keep_chunk(self, told: dict[str, Any]) -> None:
        keep = functools.partial(self._chunks.keep, told)
        stopping = self.context.stopping
        self._progress = progress = until_answered(self.keeper.check, keep, stopping)
        self._point = {name: progress[name] for name in _ROWS}
        with contextlib.suppress(OSError):
            # Where the child has gone, the next message of it says so.
            self._connection.send_bytes(child.KEPT)

    def _note_point(self, losses: dict[str, Any]) -> None:
        self._point = {name: losses.get(name) for name in _POINT}

    def _keep_up(self) -> None:
        """Write what is new, about once a second, and copy checkpoints more rarely."""
        now = time.monotonic()
        try:
            if now - self._copied >= self.context.settings.checkpoint_seconds:
                self._copied = now
                self._copy_checkpoint()
            if self._has_news() and now - self._written >= _WRITE_S:
                self._written = now
                self._write()
        except Unavailable as error:
            # The next time tells all of it.
            log.warning("job %s: %s", self.claim.job.id, error)

    def _write(self) -> None:
        notes, progress = list(self._notes), self._progress
        if self._point is not None:
            notes.append(Note("metrics", "", self._point))
        self.context.leases.heartbeat(self.claim, progress=progress, notes=notes)
        self._progress = self._point = None
        self._notes.clear()

    def _watch_stop(self) -> None:
        now = time.monotonic()
        if self._stop_until is None and self.context.stopping.is_set():
            self._stop_until = now + self.context.settings.stop_seconds
            with contextlib.suppress(OSError):
                self._connection.send_bytes(child.STOP)
        if self._stop_until is not None and now > self._stop_until:
            self.kill()

    def _copy_checkpoint(self) -> None:
        """Copy a new checkpoint to the store; forget the one before.

        While the database is away no other is put beside the one that waits for it.
        """
        if self._unnoted is not None:
            self._note_checkpoint(*self._unnoted)
        try:
            content = (self.folder / CHECKPOINT).read_bytes()
        except FileNotFoundError:
            return
        blobs, prefix = self.context.blobs, checkpoint_prefix(self.claim.job.id)
        put = functools.partial(blobs.put_content, prefix, content)
        digest = unless_ended(self.keeper.check, put)
        if digest != self.checkpoint:
            self._note_checkpoint(digest, len(content))

    def _note_checkpoint(self, digest: str, size: int) -> None:
        self._unnoted = digest, size
        note = Note("checkpoint", "checkpoint kept", {"bytes": size})
        self.context.leases.heartbeat(self.claim, checkpoint=digest, notes=[note])
        before, self.checkpoint, self._unnoted = self.checkpoint, digest, None
        if before is not None and before != digest:
            key = f"{checkpoint_prefix(self.claim.job.id)}/{before}"
            delete = functools.partial(self.context.blobs.delete, key)
            unless_ended(self.keeper.check, delete)


def checkpoint_prefix(job_id: str) -> str:
    """Return the prefix of a job's checkpoints in the store."""
    return f"{CHECKPOINTS}/{job_id}"


def _log_fields(message: dict[str, Any]) -> dict[str, Any]:
    return {name: message[name] for name in ("message", "level", "data")}
